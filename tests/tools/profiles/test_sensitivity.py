"""The closed form is the true optimum of the additive costs, and the costs follow probes and curves."""

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile, uniform
from self_pruner.tools.profiles.sensitivity import Costs, Probe, closed_form, cost_table, rank_places
from self_pruner.tools.profiles.space import Space
from tests.tools.profiles.small_spaces import LLAMA_70B, SMALL, SMOLLM2


def random_costs(space: Space, rng: random.Random) -> Costs:
    """Falling rows, deliberately not all convex."""

    def row(units: int) -> tuple[float, ...]:
        drops = [rng.random() ** 3 for _ in range(units)]
        return tuple(sum(drops[width:]) for width in range(units + 1))

    return Costs(*(tuple(row(space.units(part)) for _ in range(space.n_layers)) for part in PARTS))


def probed(space: Space, fitness: float = 0.5) -> tuple[list[Probe], dict]:
    probes = [Probe(layer, part, 1, fitness) for part in PARTS for layer in range(space.n_layers)]
    curves = {(probe.layer, probe.part): torch.linspace(1, 0, space.units(probe.part) + 1).square() for probe in probes}
    return probes, curves


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    n_groups=st.integers(1, 3),
    n_blocks=st.integers(1, 6),
    group_params=st.sampled_from([4, 9, 9 * 3, 48]),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_the_closed_form_is_as_cheap_as_the_cheapest_of_all_profiles(
    n_groups: int, n_blocks: int, group_params: int, share: float, seed: int
) -> None:
    space = Space(3, n_groups, n_blocks, group_params, 9, 0, 8)
    some = [1 + round(share * (space.units(part) - 1)) for part in PARTS]
    budget = Budget(space, space.params(Profile((some[0],) * 3, (some[1],) * 3)))
    costs = random_costs(space, random.Random(seed))
    found = closed_form(budget, costs)
    every = (
        Profile(widths[:3], widths[3:])
        for widths in itertools.product(*[range(1, space.units(part) + 1) for part in PARTS for _ in range(3)])
    )
    assert budget.holds(found)
    assert costs.total(found) == pytest.approx(min(costs.total(p) for p in every if budget.holds(p)), abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.8])
def test_the_closed_form_of_a_real_space_beats_uniform_and_random_profiles(sparsity: float) -> None:
    budget, rng = Budget.from_sparsity(SMOLLM2, sparsity), random.Random(0)
    costs = random_costs(SMOLLM2, rng)
    found = closed_form(budget, costs)
    assert budget.holds(found) and found == closed_form(budget, costs)
    others = [uniform(budget), *(random_profile(budget, rng) for _ in range(50))]
    assert costs.total(found) <= min(map(costs.total, others)) + 1e-9


def test_the_closed_form_of_eighty_layers_holds_its_budget() -> None:
    budget = Budget.from_sparsity(LLAMA_70B, 0.3)
    assert budget.holds(closed_form(budget, random_costs(LLAMA_70B, random.Random(0))))


def test_a_cost_row_passes_through_its_probe_in_the_shape_of_its_curve() -> None:
    probes, curves = probed(SMALL)
    probes[3] = Probe(0, "mlp", 6, 0.2)
    costs = cost_table(SMALL, probes, curves)
    row = costs.row(0, "mlp")
    assert row[6] == pytest.approx(0.2) and row[12] == 0.0
    assert row[3] == pytest.approx(0.2 * (9 / 6) ** 2, rel=1e-5)
    assert costs.total(SMALL.dense()) == 0.0
    assert costs.total(SMALL.dense().with_width(0, "mlp", 6)) == pytest.approx(0.2)


def test_a_curve_that_rises_with_the_width_is_made_to_fall() -> None:
    probes, curves = probed(SMALL)
    curves[1, "attention"] = torch.tensor([4.0, 1.0, 2.0, 0.5, 0.0])
    row = cost_table(SMALL, probes, curves).row(1, "attention")
    assert row == pytest.approx((1.0, 0.5, 0.5, 0.125, 0.0))


def test_a_curve_that_says_nothing_gives_a_straight_line() -> None:
    probes, curves = probed(SMALL)
    curves[2, "attention"] = [0.0] * 5
    assert cost_table(SMALL, probes, curves).row(2, "attention") == pytest.approx((2 / 3, 0.5, 1 / 3, 1 / 6, 0.0))


def test_a_probe_below_zero_by_rounding_costs_nothing() -> None:
    probes, curves = probed(SMALL)
    probes[0] = Probe(0, "attention", 1, -1e-7)
    assert cost_table(SMALL, probes, curves).row(0, "attention") == (0.0,) * 5


def test_places_with_a_single_unit_need_no_probe() -> None:
    space = Space(2, 1, 4, 48, 9, 0, 8)
    probes = [Probe(layer, "mlp", 2, 0.1) for layer in range(2)]
    curves = {(layer, "mlp"): [4.0, 3.0, 2.0, 1.0, 0.0] for layer in range(2)}
    costs = cost_table(space, probes, curves)  # type: ignore[arg-type]
    assert costs.attention == ((0.0, 0.0), (0.0, 0.0))
    budget = Budget.from_sparsity(space, 0.1)
    assert budget.holds(closed_form(budget, costs))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda probes, curves: probes.pop(), "layer 2 mlp was not probed"),
        (lambda probes, curves: probes.append(probes[0]), "probed twice"),
        (lambda probes, curves: probes.__setitem__(0, Probe(0, "attention", 4, 0.1)), "keeps 1 to 3 units"),
        (lambda probes, curves: probes.__setitem__(0, Probe(0, "attention", 1, float("nan"))), "not finite"),
        (lambda probes, curves: curves.__setitem__((0, "mlp"), [1.0, 0.0]), "a curve of 13 widths and got 2"),
    ],
)
def test_probes_and_curves_that_do_not_fit_are_refused(change: Callable, sentence: str) -> None:
    probes, curves = probed(SMALL)
    change(probes, curves)
    with pytest.raises(ToolError, match=sentence):
        cost_table(SMALL, probes, curves)


def test_places_are_ranked_by_cost_for_each_parameter_and_full_or_empty_ones_left_out() -> None:
    attention = ((0.0, 3.0, 2.0, 1.0, 0.0),) * 3  # one nat a group of 48/9 MLP units
    steep, flat = tuple(float(12 - width) for width in range(13)), tuple((12 - width) / 100 for width in range(13))
    costs = Costs(attention, (steep, flat, steep))
    budget = Budget.from_sparsity(SMALL, 0.3)
    cut, grow = rank_places(budget, costs, Profile((1, 4, 2), (6, 6, 12)))
    assert [(place.layer, place.part) for place in cut] == [
        (1, "mlp"),
        (1, "attention"),
        (2, "attention"),
        (0, "mlp"),
        (2, "mlp"),
    ]
    assert [(place.layer, place.part) for place in grow] == [
        (0, "mlp"),
        (0, "attention"),
        (2, "attention"),
        (1, "mlp"),
    ]
    assert cut[1].cost == pytest.approx(9 / 48) and cut[1].width == 4
    assert cut[0].cost == pytest.approx(0.01) and grow[0].cost == pytest.approx(1.0)


def test_ranking_by_a_larger_step_looks_further_along_the_curve() -> None:
    row = tuple(float((12 - width) ** 2) for width in range(13))
    costs = Costs(((0.0,) * 5,) * 3, (row,) * 3)
    budget = Budget.from_sparsity(SMALL, 0.3)
    cut, _ = rank_places(budget, costs, SMALL.dense(), step=4)
    assert next(place for place in cut if place.part == "mlp").cost == pytest.approx(16 / 4)
