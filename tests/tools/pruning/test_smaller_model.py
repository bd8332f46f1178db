"""A profile equals a model of really smaller tensors, which are named before they are made."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from self_pruner.memory.profile import Profile
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.compensation import COMPENSATIONS
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_outline, smaller_tensors
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_model
from tests.tools.pruning.elastic_models import INPUT_IDS, TEXT, assert_same_logits, dense, elastic, profiles

HEAD_DIM = 16  # rows of k_proj that are one KV group


def select(old: nn.Linear, rows: list[int], columns: list[int]) -> nn.Linear:
    """A new, really smaller linear layer made of some rows and columns of another."""
    new = nn.Linear(len(columns), len(rows), bias=old.bias is not None)
    with torch.no_grad():
        for place, row in enumerate(rows):
            new.weight[place] = old.weight[row, columns]
            if old.bias is not None:
                new.bias[place] = old.bias[row]
    return new


def really_smaller(model: PreTrainedModel, elastic_model: ElasticModel, profile: Profile, mha: bool) -> PreTrainedModel:
    """The dense model with the units that `profile` drops cut out of new, smaller modules, one by one."""
    smaller = copy.deepcopy(model)
    heads = 1 if mha else 2
    everything = list(range(64))
    for index, layer in enumerate(smaller.model.layers):
        groups = elastic_model.orders.attention[index].tolist()[: profile.attention[index]]
        channels = elastic_model.orders.mlp[index].tolist()[: MLP_UNIT * profile.mlp[index]]
        queries = [row for group in groups for row in range(group * heads * HEAD_DIM, (group + 1) * heads * HEAD_DIM)]
        keys = [row for group in groups for row in range(group * HEAD_DIM, (group + 1) * HEAD_DIM)]
        attention, mlp = layer.self_attn, layer.mlp
        attention.q_proj = select(attention.q_proj, queries, everything)
        attention.k_proj = select(attention.k_proj, keys, everything)
        attention.v_proj = select(attention.v_proj, keys, everything)
        attention.o_proj = select(attention.o_proj, everything, queries)
        mlp.gate_proj = select(mlp.gate_proj, channels, everything)
        mlp.up_proj = select(mlp.up_proj, channels, everything)
        mlp.down_proj = select(mlp.down_proj, everything, channels)
    return smaller


def from_state_dict(model: PreTrainedModel, tensors: dict[str, Tensor]) -> PreTrainedModel:
    """A model whose linear layers have the shapes of `tensors`, loaded strictly."""
    smaller = copy.deepcopy(model)
    for name, module in list(smaller.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            rows, columns = tensors[f"{name}.weight"].shape
            parent, _, child = name.rpartition(".")
            setattr(smaller.get_submodule(parent), child, nn.Linear(columns, rows, bias=f"{name}.bias" in tensors))
    smaller.load_state_dict(tensors, strict=True)
    return smaller.eval()


@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_any_profile_equals_a_model_cut_out_of_the_original_unit_by_unit(family, mha):
    model, _ = dense(family, mha)
    sliced = elastic(family, mha)
    for profile in profiles(3):
        assert_same_logits(sliced.logits(INPUT_IDS, profile), really_smaller(model, sliced, profile, mha))


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_any_profile_equals_a_model_built_with_the_smaller_tensors(family, mha, compensation):
    model, _ = dense(family, mha)
    sliced = elastic(family, mha, compensation)
    for profile in profiles(2):
        tensors = dict(smaller_tensors(sliced, profile))
        assert sum(tensor.numel() for tensor in tensors.values()) == sliced.space.params(profile)
        assert_same_logits(sliced.logits(INPUT_IDS, profile), from_state_dict(model, tensors))


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_biases_of_all_projections_are_kept(compensation):
    model = tiny_model("llama", attention_bias=True, mlp_bias=True)
    sliced = ElasticModel(
        copy.deepcopy(model), calibrate(model, TEXT), compensation=compensation, mlp_unit=MLP_UNIT, importance="flap"
    )
    assert_same_logits(sliced.model(INPUT_IDS).logits, model)
    for profile in profiles(2):
        tensors = dict(smaller_tensors(sliced, profile))
        assert sum(tensor.numel() for tensor in tensors.values()) == sliced.space.params(profile)
        assert_same_logits(sliced.logits(INPUT_IDS, profile), from_state_dict(model, tensors))


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_the_outline_names_the_smaller_tensors_in_their_order_without_a_number(family, compensation):
    sliced, profile = elastic(family, compensation=compensation), Profile((2, 4, 1), (5, 12, 3))
    refitted = sliced.compensator.refits
    outline = smaller_outline(sliced, profile)
    assert all(tensor.is_meta for tensor in outline.values()) and sliced.compensator.refits == refitted
    tensors = smaller_tensors(sliced, profile)
    assert [(name, one.shape, one.dtype) for name, one in outline.items()] == [
        (name, one.shape, one.dtype) for name, one in tensors
    ]


def test_a_head_tied_to_the_embedding_is_counted_and_written_once():
    model = tiny_model("llama", tied=True)
    sliced = ElasticModel(model, calibrate(model, TEXT), mlp_unit=MLP_UNIT)
    tensors = dict(smaller_tensors(sliced, sliced.space.smallest()))
    assert "lm_head.weight" not in tensors
    assert sum(tensor.numel() for tensor in tensors.values()) == sliced.space.params(sliced.space.smallest())
