"""The elastic model: reordering changes nothing, switching is free, and what it leaves out is measured."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.compensation import COMPENSATIONS
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import IMPORTANCES, wanda_sp
from self_pruner.tools.pruning.moments import ChannelMoments
from self_pruner.tools.pruning.store import output_projection
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_model
from tests.tools.pruning.elastic_models import INPUT_IDS, TEXT, assert_same_logits, dense, elastic, profiles

GROUP = 32  # rows of q_proj that are one KV group of the GQA model


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_reordering_leaves_the_dense_function_unchanged(family, mha, importance):
    model, _ = dense(family, mha)
    reordered = elastic(family, mha, importance=importance)
    moved = any(order.tolist() != sorted(order.tolist()) for order in reordered.orders.attention)
    assert moved, "the test needs a model whose groups change places"
    assert_same_logits(reordered.model(INPUT_IDS).logits, model)
    assert_same_logits(reordered.logits(INPUT_IDS, reordered.space.dense()), model)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [("mistral", {}), ("qwen3", {"use_sliding_window": True, "max_window_layers": 1})],
)
def test_sliding_windows_are_respected(family, overrides):
    model = tiny_model(family, sliding_window=6, **overrides)
    sliced = ElasticModel(copy.deepcopy(model), calibrate(model, TEXT), mlp_unit=MLP_UNIT)
    assert_same_logits(sliced.logits(INPUT_IDS, sliced.space.dense()), model)


def weights_of(sliced: ElasticModel, profile: Profile) -> list[Tensor]:
    return [
        tensor
        for layer in range(3)
        for part in PARTS
        for tensor in sliced.block_weights(layer, part, profile.widths(part)[layer]).values()
    ]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_without_compensation_every_weight_of_every_profile_is_a_view(family):
    sliced = elastic(family)
    theirs = {parameter.untyped_storage().data_ptr() for parameter in sliced.model.parameters()}
    for profile in profiles(3):
        assert all(tensor.untyped_storage().data_ptr() in theirs for tensor in weights_of(sliced, profile))


def allocated(sliced: ElasticModel, choice: list[Profile]) -> int:
    """Bytes that torch allocates while the weights of all profiles are put together."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        for profile in choice:
            weights_of(sliced, profile)
    return sum(max(event.self_cpu_memory_usage, 0) for event in profiler.events())


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_switching_between_known_profiles_allocates_nothing(compensation):
    sliced = elastic(compensation=compensation)
    choice = profiles(3)
    first = allocated(sliced, choice)
    assert (first > 0) == (compensation != "none"), "the profiler must see the allocations that there are"
    assert allocated(sliced, choice) == 0


@pytest.mark.parametrize("compensation", ["bias", "lstsq"])
def test_what_compensation_makes_is_remembered(compensation):
    sliced = elastic(compensation=compensation)
    name = "down_proj.bias" if compensation == "bias" else "down_proj.weight"
    assert sliced.block_weights(1, "mlp", 5)[name] is sliced.block_weights(1, "mlp", 5)[name]


def test_what_is_remembered_stays_within_its_bound_and_changes_no_result():
    bounded, free = elastic(compensation="lstsq", refit_memory=100_000), elastic(compensation="lstsq")
    for profile in profiles(4):
        assert torch.equal(bounded.logits(INPUT_IDS, profile), free.logits(INPUT_IDS, profile))
    assert bounded.compensator.memo.used <= 100_000 < free.compensator.memo.used


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_running_a_profile_leaves_no_trace_in_the_model(compensation):
    model, _ = dense("llama")
    sliced = elastic(compensation=compensation)
    before = {name: tensor.clone() for name, tensor in sliced.model.state_dict().items()}
    small = Profile((1, 2, 1), (2, 3, 4))
    first = sliced.logits(INPUT_IDS, small)
    sliced.logits(INPUT_IDS, Profile((2, 1, 3), (9, 1, 1)))
    assert torch.equal(sliced.logits(INPUT_IDS, small), first)
    after = sliced.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert_same_logits(sliced.model(INPUT_IDS).logits, model)


def test_the_reordered_model_generates_as_before():
    model, _ = dense("llama")
    settings = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(elastic().model.generate(INPUT_IDS, **settings), model.generate(INPUT_IDS, **settings))


def test_units_stand_in_descending_importance():
    sliced = elastic()
    for index, layer in enumerate(sliced.model.model.layers):
        scores = {}
        for part in PARTS:
            features = sliced.moments.features(index, part)
            moments = ChannelMoments(features.gram.diagonal(), features.sums, features.tokens)
            scores[part] = wanda_sp(output_projection(layer, part).weight, moments)
        groups = scores["attention"].view(4, GROUP).sum(1)
        assert (groups.diff() <= 0).all() and (scores["mlp"].diff() <= 1e-4).all()


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("part", PARTS)
def test_the_residual_is_the_output_error_that_the_activations_give(part, compensation):
    sliced = elastic("qwen2", compensation=compensation)
    layer = sliced.model.model.layers[1]
    output = output_projection(layer, part)
    seen: list[Tensor] = []
    hook = output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, 1)))
    sliced.model(TEXT)
    hook.remove()
    inputs = seen[0]
    name = "o_proj" if part == "attention" else "down_proj"
    units = sliced.space.units(part)
    expected = [None]
    for width in range(1, units):
        weights = sliced.block_weights(1, part, width)
        kept = weights[f"{name}.weight"]
        pruned = inputs[:, : kept.shape[1]] @ kept.T + weights.get(f"{name}.bias", 0)
        expected.append((inputs @ output.weight.T - pruned).square().sum(1).mean().item())
    residual = sliced.residual(1, part)
    assert residual.shape == (units + 1,) and residual[units] == 0
    assert residual[1:units].tolist() == pytest.approx(expected[1:], rel=1e-3)
    assert residual[0] > residual[1]


def test_the_refit_is_closer_to_the_dense_layer_than_plain_slices():
    plain, refitted = elastic(), elastic(compensation="lstsq")
    for index in range(3):
        for part in PARTS:
            units = plain.space.units(part)
            assert (refitted.residual(index, part)[1:units] < plain.residual(index, part)[1:units]).all()


def test_a_singular_gram_is_damped_and_named():
    model, _ = dense("llama")
    few = calibrate(model, TEXT[:1, :4])  # 4 tokens for 96 channels
    sliced = ElasticModel(copy.deepcopy(model), few, mlp_unit=MLP_UNIT, damping=0.0)
    assert sliced.warnings == []
    assert torch.isfinite(sliced.logits(INPUT_IDS, Profile((4, 4, 4), (12, 6, 12)))).all()
    assert len(sliced.warnings) == 1 and "mlp of layer 1 is singular" in sliced.warnings[0]


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_a_profile_runs_in_the_type_of_the_weights(compensation):
    model = tiny_model("llama", dtype=torch.bfloat16)
    sliced = ElasticModel(model, calibrate(model, TEXT), compensation=compensation, mlp_unit=MLP_UNIT)
    assert sliced.dtype == torch.bfloat16
    assert sliced.logits(INPUT_IDS, Profile((1, 2, 3), (1, 5, 9))).dtype == torch.bfloat16


def test_a_model_is_reordered_only_once():
    model, calibration = dense("llama")
    sliced = ElasticModel(copy.deepcopy(model), calibration, mlp_unit=MLP_UNIT)
    with pytest.raises(ModelError, match="reordered already"):
        ElasticModel(sliced.model, calibration, mlp_unit=MLP_UNIT)


def test_a_calibration_of_another_model_is_refused_and_the_model_left_alone():
    model = tiny_model("llama", intermediate_size=64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match="96 mlp channels, the model 64"):
        ElasticModel(model, dense("llama")[1], mlp_unit=MLP_UNIT)
    with pytest.raises(ModelError, match="3 layers, the model 2"):
        ElasticModel(tiny_model("llama", num_hidden_layers=2), dense("llama")[1], mlp_unit=MLP_UNIT)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("width", [0, 5, -1])
def test_a_width_outside_the_layer_names_what_is_allowed(width):
    with pytest.raises(ModelError, match="keeps 1 to 4 units"):
        elastic().block_weights(0, "attention", width)


def test_a_profile_of_another_model_is_refused():
    with pytest.raises(ModelError, match="3 layers with 1 to 4 attention and 1 to 12 MLP units"):
        elastic().logits(INPUT_IDS, Profile((4, 4), (12, 12)))
