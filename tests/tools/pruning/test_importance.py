"""Each importance equals a slow, literal implementation of its formula."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import PARTS
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.importance import (
    flap_wifv,
    group_scores,
    importance_orders,
    magnitude,
    part_scores,
    taylor_orders,
    unit_order,
    wanda_sp,
)
from self_pruner.tools.pruning.moments import ChannelMoments, Features
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import tiny_model


def random_problem(out: int = 5, channels: int = 8, rows: int = 11) -> tuple[Tensor, Tensor]:
    """A weight [out, channels] and inputs [rows, channels] with a mean that is far from zero."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(out, channels, generator=generator), torch.randn(rows, channels, generator=generator) + 2


def moments_of(inputs: Tensor) -> ChannelMoments:
    return Features(inputs.T @ inputs, inputs.sum(0), len(inputs)).by_channel()


def literal_wanda_sp(weight: Tensor, inputs: Tensor) -> list[float]:
    scores = []
    for j in range(weight.shape[1]):
        norm = math.sqrt(sum(float(inputs[t, j]) ** 2 for t in range(len(inputs))))
        scores.append(sum(abs(float(weight[i, j])) * norm for i in range(len(weight))))
    return scores


def literal_wifv(weight: Tensor, inputs: Tensor) -> list[float]:
    scores = []
    n = len(inputs)
    for j in range(weight.shape[1]):
        mean = sum(float(inputs[t, j]) for t in range(n)) / n
        fluctuation = sum((float(inputs[t, j]) - mean) ** 2 for t in range(n)) / (n - 1)
        scores.append(fluctuation * sum(float(weight[i, j]) ** 2 for i in range(len(weight))))
    return scores


def test_wanda_sp_is_the_sum_of_weights_times_input_norms():
    weight, inputs = random_problem()
    assert wanda_sp(weight, moments_of(inputs)).tolist() == pytest.approx(literal_wanda_sp(weight, inputs), rel=1e-5)


def test_flap_is_the_input_variance_times_the_squared_weight_norm():
    weight, inputs = random_problem()
    scores = flap_wifv(weight, moments_of(inputs))
    assert scores.tolist() == pytest.approx(literal_wifv(weight, inputs), rel=1e-4)


def test_flap_gives_a_constant_channel_nothing():
    weight, inputs = random_problem()
    inputs[:, 2] = 7.0
    scores = flap_wifv(weight, moments_of(inputs))
    assert scores[2] < 1e-3 * scores.median()


def test_flap_of_one_row_is_zero_and_not_nan():
    weight, inputs = random_problem(rows=1)
    scores = flap_wifv(weight, moments_of(inputs))
    assert scores.tolist() == pytest.approx([0.0] * 8, abs=1e-5)


def test_a_group_scores_the_sum_of_its_channels():
    scores = torch.arange(12.0)
    assert group_scores(scores, 3).tolist() == [6.0, 22.0, 38.0]


def literal_magnitude(model, index: int, unit: int) -> tuple[float, float]:
    """Sums of |w| of KV group `unit` and of MLP channel `unit` of one layer of the tiny GQA model, weight by weight."""
    attention, mlp = model.model.layers[index].self_attn, model.model.layers[index].mlp
    total = 0.0
    for row in range(128):
        if row // 32 == unit:  # two query heads of 16 a group
            total += sum(abs(float(w)) for w in attention.q_proj.weight[row])
            total += sum(abs(float(w)) for w in attention.o_proj.weight[:, row])
    for row in range(64):
        if row // 16 == unit:
            total += sum(abs(float(w)) for w in attention.k_proj.weight[row])
            total += sum(abs(float(w)) for w in attention.v_proj.weight[row])
    channel = sum(abs(float(w)) for w in mlp.gate_proj.weight[unit])
    channel += sum(abs(float(w)) for w in mlp.up_proj.weight[unit])
    channel += sum(abs(float(w)) for w in mlp.down_proj.weight[:, unit])
    return total, channel


def test_magnitude_counts_every_weight_of_the_unit():
    model = tiny_model("llama")
    layer = model.model.layers[1]

    def unread():
        raise AssertionError("moments were read")

    attention = part_scores(layer, "attention", unread, 4, "magnitude")
    mlp = part_scores(layer, "mlp", unread, 4, "magnitude")
    assert len(attention) == 4 and len(mlp) == 96
    for unit in range(4):
        assert (attention[unit].item(), mlp[unit].item()) == pytest.approx(literal_magnitude(model, 1, unit), rel=1e-5)


def test_magnitude_takes_rows_of_any_shape():
    assert magnitude(torch.tensor([[1.0, -2.0], [0.0, 3.0]]), torch.tensor([[-1.0], [4.0]])).tolist() == [4.0, 7.0]


@pytest.mark.parametrize("method", ["wanda-sp", "flap"])
def test_a_layer_is_scored_by_its_output_projections_and_their_inputs(method):
    model = tiny_model("qwen2")
    input_ids = torch.randint(0, 512, (2, 12), generator=torch.Generator().manual_seed(1))
    rows: dict[str, Tensor] = {}
    layer = model.model.layers[2]

    def keep(name, module, inputs):
        rows[name] = inputs[0].flatten(0, 1)

    for part, module in (("attention", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):
        module.register_forward_pre_hook(partial(keep, part))
    model(input_ids)
    literal = literal_wanda_sp if method == "wanda-sp" else literal_wifv
    heads = literal(layer.self_attn.o_proj.weight, rows["attention"])
    expected = {
        "attention": [sum(heads[32 * group : 32 * (group + 1)]) for group in range(4)],
        "mlp": literal(layer.mlp.down_proj.weight, rows["mlp"]),
    }
    calibration = calibrate(model, input_ids)
    for part in PARTS:
        scores = part_scores(layer, part, partial(calibration.channel_moments, 2, part), 4, method)
        assert scores.tolist() == pytest.approx(expected[part], rel=2e-3)


def test_units_are_ordered_from_most_to_least_important_and_ties_keep_their_places():
    assert unit_order(torch.tensor([1.0, 3.0, 1.0, 5.0, 3.0])).tolist() == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("method", ["wanda-sp", "flap", "magnitude"])
def test_orders_are_permutations_of_groups_and_channels(method):
    model = tiny_model("llama")
    calibration = calibrate(model, torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(2)))
    orders = importance_orders(ResidentLayers(model), calibration, 4, method)
    assert [sorted(order.tolist()) for order in orders.attention] == [list(range(4))] * 3
    assert [sorted(order.tolist()) for order in orders.mlp] == [list(range(96))] * 3


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_first_order_importance_is_that_of_one_plain_backward_pass(family):
    model = tiny_model(family)
    ids = torch.randint(0, model.config.vocab_size, (12, 70), generator=torch.Generator().manual_seed(1))
    groups = model.config.num_key_value_heads
    before = {name: value.clone() for name, value in model.state_dict().items()}
    orders = taylor_orders(model, ResidentLayers(model), ids, groups)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.parameters())

    def salience(weight):
        return (weight * weight.grad).abs()

    read = ids[:10, :64]
    for parameter in model.parameters():
        parameter.requires_grad_()
    model(input_ids=read, labels=read).loss.backward()
    for index, layer in enumerate(model.model.layers):
        mlp, attention = layer.mlp, layer.self_attn
        inputs = salience(mlp.gate_proj.weight) + salience(mlp.up_proj.weight)
        channels = inputs.sum(1) + salience(mlp.down_proj.weight).sum(0)
        scores = salience(attention.o_proj.weight).sum(0).view(groups, -1).sum(1)
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            scores += salience(linear.weight).sum(1).view(groups, -1).sum(1)
        assert torch.equal(orders.mlp[index], torch.argsort(channels, descending=True, stable=True))
        assert torch.equal(orders.attention[index], torch.argsort(scores, descending=True, stable=True))


def test_first_order_importance_of_a_broken_model_or_no_text_is_refused_in_a_sentence():
    model = tiny_model("llama")
    layers, groups = ResidentLayers(model), model.config.num_key_value_heads
    with pytest.raises(MeasurementError, match=r"^first-order importance needs samples of two tokens, got shape "):
        taylor_orders(model, layers, torch.zeros(3, 1, dtype=torch.long), groups)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.inf
    with pytest.raises(MeasurementError, match=r"^the loss has no finite gradient in the [^\n]*; try --dtype float32$"):
        taylor_orders(model, layers, torch.ones(3, 8, dtype=torch.long), groups)
