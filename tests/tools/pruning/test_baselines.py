"""OWL and FLAP equal slow, literal implementations on the model that was calibrated, and end exactly on budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.pruning.baselines import (
    channel_fluctuations,
    flap,
    keep_best,
    outlier_ratio,
    owl,
    owl_rates,
    standardised,
    weights_and_norms,
)
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import IMPORTANCES, taylor_orders
from self_pruner.tools.pruning.store import ResidentLayers, block
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_model
from tests.tools.pruning.literal_closed_forms import inputs_of, literal_flap, literal_keep_best, literal_ratio

TEXT = torch.randint(0, 512, (4, 24), generator=torch.Generator().manual_seed(0))
SPARSITIES = tuple(percent / 100 for percent in range(5, 80, 5))

property_test = settings(deadline=None, derandomize=True, max_examples=100)


def planted(family: str = "llama", mha: bool = False) -> PreTrainedModel:
    """A random model with larger weights here and there, for Gaussian ones have few outliers: layer 0 has most."""
    model = tiny_model(family, mha)
    generator = torch.Generator().manual_seed(7)
    for index, layer in enumerate(model.model.layers):
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                large = torch.rand(module.weight.shape, generator=generator) < (0.03, 0.005, 0.015)[index]
                module.weight[large] *= 15
    return model


def elastic_of(model: PreTrainedModel, **options) -> ElasticModel:
    """The elastic model of `model`, which it reorders."""
    calibration = calibrate(model, TEXT)
    if options.get("importance") == "taylor":
        options["orders"] = taylor_orders(model, ResidentLayers(model), TEXT, model.config.num_key_value_heads)
    return ElasticModel(model, calibration, mlp_unit=MLP_UNIT, **options)


@cache
def elastic(family: str = "llama", mha: bool = False) -> ElasticModel:
    return elastic_of(planted(family, mha))


def budget_at(elastic_model: ElasticModel, sparsity: float) -> Budget:
    return Budget.from_sparsity(elastic_model.space, sparsity)


# --- OWL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_outlier_ratio_is_that_of_the_model_before_reordering_weight_by_weight(family, mha):
    model = planted(family, mha)
    rows = inputs_of(model, TEXT)
    for index, layer in enumerate(model.model.layers):
        expected = literal_ratio(layer, rows, 5.0)
        assert expected > 0.1, "the test needs layers with outliers"
        found = outlier_ratio(list(weights_and_norms(elastic(family, mha), index)))
        assert found == pytest.approx(expected, abs=0.01)  # float32 may see a few of 40,000 weights differently


@pytest.mark.parametrize("mha", [False, True])
def test_every_linear_map_of_a_layer_comes_once_with_the_norms_of_its_own_columns(mha):
    model = planted("llama", mha)
    rows = inputs_of(model, TEXT)
    for index, layer in enumerate(model.model.layers):
        linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        found = list(weights_and_norms(elastic("llama", mha), index))
        assert len(found) == len(linears) == 7
        for module, (weight, norms) in zip(linears, found, strict=True):
            literal = (module.weight.double().abs() * rows[module].norm(dim=0)).sum().item()
            assert (weight.double().abs() * norms).sum().item() == pytest.approx(literal, rel=1e-5)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.05, 0.95), st.floats(0, 0.3))
@property_test
def test_rates_have_the_mean_asked_for_and_span_twice_the_spread(ratios, sparsity, spread):
    assume(max(ratios) == min(ratios) or max(ratios) - min(ratios) > 1e-6)
    rates = owl_rates(ratios, sparsity, spread)
    assert statistics.mean(rates) == pytest.approx(sparsity, abs=1e-9)
    assert max(rates) - min(rates) == pytest.approx(2 * spread if len(set(ratios)) > 1 else 0, abs=1e-9)
    by_ratio = [rate for _, rate in sorted(zip(ratios, rates, strict=True), key=lambda pair: pair[0])]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(by_ratio, by_ratio[1:], strict=False))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.floats(0.05, 0.95), st.floats(0, 0.3))
@property_test
def test_bounded_rates_have_the_mean_asked_for_and_reach_but_never_leave_the_interval_of_the_paper(ratios, s, spread):
    assume(max(ratios) - min(ratios) > 1e-6)
    rates = owl_rates(ratios, s, spread, bounded=True)
    assert statistics.mean(rates) == pytest.approx(s, abs=1e-9)
    assert max(abs(rate - s) for rate in rates) == pytest.approx(spread, abs=1e-9)


def test_rates_are_the_released_formula_step_by_step():
    ratios = [0.2, 1.7, 0.4, 0.3]
    scaled = [(ratio - min(ratios)) * (1 / (max(ratios) - min(ratios)) * 0.08 * 2) for ratio in ratios]
    kept = [value - statistics.mean(scaled) + (1 - 0.7) for value in scaled]
    assert owl_rates(ratios, 0.7) == pytest.approx([1 - value for value in kept], abs=1e-12)
    assert min(owl_rates(ratios, 0.7)) < 0.7 - 0.08 <= min(owl_rates(ratios, 0.7, bounded=True)) + 1e-12


@pytest.mark.parametrize("bounded", [False, True])
def test_layers_that_do_not_differ_are_cut_alike(bounded):
    assert owl_rates([0.4, 0.4, 0.4], 0.3, bounded=bounded) == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_owl_rounds_the_share_of_every_place_as_a_literal_implementation_does(family, mha):
    model = planted(family, mha)
    rows = inputs_of(model, TEXT)
    ratios = [literal_ratio(layer, rows, 5.0) for layer in model.model.layers]
    for sparsity in SPARSITIES:
        budget = budget_at(elastic(family, mha), sparsity)
        shares = [1 - rate for rate in owl_rates(ratios, budget.sparsity)]
        scores = {
            part: [[share - (unit + 0.5) / units + first for unit in range(units)] for share in shares]
            for part, units, first in (("attention", 4, 1e-12), ("mlp", 12, 0.0))  # attention first among equals
        }
        assert owl(budget, elastic(family, mha)) == literal_keep_best(budget, scores)


def test_owl_cuts_a_layer_with_planted_outliers_least():
    for sparsity in (0.3, 0.5, 0.7):
        profile = owl(budget_at(elastic(), sparsity), elastic(), spread=0.2)
        kept = [profile.attention[layer] / 4 + profile.mlp[layer] / 12 for layer in range(3)]
        assert kept[0] > kept[2] >= kept[1]


def test_owl_does_not_depend_on_the_order_of_the_units():
    models = [elastic_of(planted(), importance=importance) for importance in IMPORTANCES]
    assert models[0].orders.mlp[1].tolist() != models[2].orders.mlp[1].tolist()
    for sparsity in SPARSITIES:
        assert len({owl(budget_at(model, sparsity), model) for model in models}) == 1


# --- FLAP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_flap_equals_a_literal_implementation_on_the_model_before_reordering(family, mha, square):
    scores = literal_flap(planted(family, mha), TEXT, elastic(family, mha), square)
    for sparsity in SPARSITIES:
        budget = budget_at(elastic(family, mha), sparsity)
        assert flap(budget, elastic(family, mha), square_attention=square) == literal_keep_best(budget, scores)


def changed(part: Part, index: int, change: Callable[[nn.Module], None]) -> ElasticModel:
    """The elastic model of a random model with one part of one layer changed before calibration."""
    model = tiny_model("llama")
    change(block(model.model.layers[index], part))
    return elastic_of(model)


@pytest.mark.parametrize(("part", "name"), [("attention", "v_proj"), ("mlp", "up_proj")])
def test_flap_cuts_a_layer_whose_channels_never_vary_to_one_unit(part, name):
    dead = changed(part, 1, lambda module: module.get_submodule(name).weight.zero_())
    profile = flap(budget_at(dead, 0.3), dead)
    assert profile.widths(part)[1] == 1
    assert min(profile.widths(part)[layer] for layer in (0, 2)) > 1


def test_flap_keeps_a_layer_of_one_great_channel_when_little_is_cut_and_drops_it_when_much_is():
    def spike(module: nn.Module) -> None:
        module.down_proj.weight[:, 5] *= 100  # all other channels are now just below the layer's mean

    spiked = changed("mlp", 1, spike)
    mild, heavy = (flap(budget_at(spiked, sparsity), spiked).mlp for sparsity in (0.25, 0.75))
    assert mild[1] > max(mild[0], mild[2]) and heavy[1] < min(heavy[0], heavy[2])


@pytest.mark.parametrize("part", PARTS)
def test_flap_does_not_see_the_scale_of_a_layer(part):
    name = "o_proj" if part == "attention" else "down_proj"
    # The last layer's output goes into no other layer. A power of two leaves every rounding as it was.
    louder = changed(part, 2, lambda module: module.get_submodule(name).weight.mul_(4))
    plain = changed(part, 2, lambda module: None)
    fluctuations = [channel_fluctuations(model, 2, part) for model in (plain, louder)]
    assert torch.equal(16 * fluctuations[0], fluctuations[1])
    if part == "mlp":  # the scale of an attention does reach the MLP after it
        for sparsity in SPARSITIES:
            assert flap(budget_at(plain, sparsity), plain) == flap(budget_at(louder, sparsity), louder)


def test_standardised_scores_have_mean_zero_and_unit_deviation_and_flat_ones_come_last():
    scores = standardised(torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64))
    assert scores.tolist() == pytest.approx([(x - 4) / math.sqrt(38 / 3) for x in (1, 2, 4, 9)])
    assert standardised(torch.full((3,), 0.5)).tolist() == [-math.inf] * 3


# --- whole units ----------------------------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> tuple[Budget, dict[Part, list[list[float]]]]:
    """A budget that some profile meets, and different scores for all units."""
    n = draw(st.integers(1, 4))
    sizes: dict[Part, int] = {"attention": draw(st.integers(1, 4)), "mlp": draw(st.integers(1, 12))}
    weights = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    space = Space(n, sizes["attention"], sizes["mlp"], *weights, fixed_params=77, mlp_unit=8)
    widths = {part: tuple(draw(st.integers(1, size)) for _ in range(n)) for part, size in sizes.items()}
    budget = Budget(space, space.params(Profile(widths["attention"], widths["mlp"])))
    order = draw(st.permutations(range(n * sum(sizes.values()))))
    numbers = iter(float(number) for number in order)
    return budget, {part: [[next(numbers) for _ in range(size)] for _ in range(n)] for part, size in sizes.items()}


@given(problems())
@property_test
def test_the_best_units_in_the_model_are_kept_one_at_least_in_every_place(problem):
    budget, scores = problem
    profile = keep_best(budget, torch.tensor(scores["attention"]), torch.tensor(scores["mlp"]))
    assert budget.holds(profile)
    assert profile == (literal_keep_best(budget, scores) or profile)


@given(share=st.floats(0, 1), mha=st.booleans(), rule=st.sampled_from([owl, flap]))
@property_test
def test_both_are_exactly_on_budget_at_any_sparsity(share, mha, rule):
    model = elastic("qwen2", mha)
    budget = budget_at(model, share * model.space.sparsity(model.space.smallest()))
    assert budget.holds(rule(budget, model))


@pytest.mark.parametrize("rule", [owl, flap])
def test_the_ends_are_the_dense_and_the_smallest_profile(rule):
    space = elastic().space
    for profile in (space.dense(), space.smallest()):
        assert rule(Budget(space, space.params(profile)), elastic()) == profile


@pytest.mark.parametrize("rule", [owl, flap])
def test_neither_changes_a_weight_or_takes_the_calibration_apart(rule):
    model = elastic_of(planted())
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    first = rule(budget_at(model, 0.4), model)
    assert rule(budget_at(model, 0.4), model) == first
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())


@pytest.mark.parametrize("rule", [owl, flap])
def test_a_budget_of_another_space_is_refused(rule):
    other = Budget.from_sparsity(elastic("llama", True).space, 0.3)
    with pytest.raises(ToolError, match="budget is of another model"):
        rule(other, elastic())


@pytest.mark.parametrize("setting", [{"multiple": 0.0}, {"multiple": math.nan}, {"spread": -0.1}, {"spread": math.inf}])
def test_settings_of_owl_out_of_range_are_refused_in_one_sentence(setting):
    with pytest.raises(ToolError, match="not (0.0|nan|-0.1|inf)$"):
        owl(budget_at(elastic(), 0.3), elastic(), **setting)
