"""The budget is exact and its repair least: checked against every profile of small spaces, and on two real ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError, parse_params
from self_pruner.tools.profiles.space import Space
from tests.tools.profiles.small_spaces import LLAMA_70B, SMALL, SMOLLM2, every_profile, params, property_test, spaces


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    space = draw(spaces())
    totals = space.params(space.smallest()), space.params(space.dense())
    target = draw(st.integers(*totals))
    try:
        return Budget(space, target)
    except ImpossibleTargetError:  # a gap, which other tests are about: take a count that some profile has
        return Budget(space, draw(st.sampled_from(totals)))


@st.composite
def proposals(draw: st.DrawFn, space: Space) -> Profile:
    """Integer vectors, in and out of bounds."""

    def widths(dense: int) -> tuple[int, ...]:
        n = space.n_layers
        kinds = [
            st.lists(st.integers(1, dense), min_size=n, max_size=n),
            st.lists(st.integers(-3, dense + 4), min_size=n, max_size=n),
            st.sampled_from([[1] * n, [dense] * n, [-(10**6)] * n, [10**6] * n]),
        ]
        return tuple(draw(st.one_of(kinds)))

    return Profile(widths(space.n_groups), widths(space.n_blocks))


def least_distance(budget: Budget, proposal: Profile) -> float:
    """The parameters that any repair must move, in MLP units, by trying all of them."""
    space, profiles = budget.space, every_profile(budget.space)
    holding = profiles[2 * (params(space, profiles) - budget.target_params).abs() <= space.block_params]
    moved = (holding - torch.tensor(proposal.attention + proposal.mlp)).abs()
    weighed = moved[:, : space.n_layers].sum(1) * space.group_params + moved[:, space.n_layers :].sum(1) * (
        space.block_params
    )
    return weighed.min().item() / space.block_params


def distance(space: Space, a: Profile, b: Profile) -> float:
    return sum(
        abs(x - y) * space.unit_params(part) / space.block_params
        for part in PARTS
        for x, y in zip(a.widths(part), b.widths(part), strict=True)
    )


@property_test
@given(st.data())
def test_projection_is_feasible_idempotent_deterministic_and_reports_what_it_moved(data: st.DataObject) -> None:
    budget = data.draw(budgets())
    proposal = data.draw(proposals(budget.space))
    found = budget.project(proposal.attention, proposal.mlp)
    assert budget.space.contains(found.profile) and budget.holds(found.profile)
    assert 2 * abs(budget.space.params(found.profile) - budget.target_params) <= budget.space.block_params
    again = budget.project(found.profile.attention, found.profile.mlp)
    assert again.profile == found.profile and again.changed_units == 0 and again.moved == 0
    assert Budget(budget.space, budget.target_params).project(list(proposal.attention), list(proposal.mlp)) == found
    assert found.moved == pytest.approx(distance(budget.space, proposal, found.profile))
    pairs = zip(proposal.attention + proposal.mlp, found.profile.attention + found.profile.mlp, strict=True)
    assert found.changed_units == sum(abs(x - y) for x, y in pairs)


@property_test
@given(st.data())
def test_projection_is_within_one_unit_of_the_nearest_of_all_profiles(data: st.DataObject) -> None:
    budget = data.draw(budgets())
    proposal = data.draw(proposals(budget.space))
    moved = budget.project(proposal.attention, proposal.mlp).moved
    assert moved <= least_distance(budget, proposal) + 1 + 1e-9


@property_test
@given(st.data())
def test_held_places_change_only_when_the_others_cannot_and_cost_nothing(data: st.DataObject) -> None:
    budget = data.draw(budgets())
    space = budget.space
    proposal = data.draw(proposals(space))
    hold = data.draw(st.sets(st.tuples(st.integers(0, space.n_layers - 1), st.sampled_from(PARTS))))
    found = budget.project(proposal.attention, proposal.mlp, hold)
    assert budget.holds(found.profile)
    assert found.moved <= least_distance(budget, proposal) + 1 + 1e-9
    for layer, part in hold:
        before = min(max(proposal.widths(part)[layer], 1), space.units(part))
        after = found.profile.widths(part)[layer]
        if after != before:  # then every place of the part that was not held is at its bound
            bound = space.units(part) if after > before else 1
            others = [other for other in range(space.n_layers) if (other, part) not in hold]
            assert all(found.profile.widths(part)[other] == bound for other in others)


@pytest.mark.parametrize("space", [SMOLLM2, LLAMA_70B, SMALL])
@settings(deadline=None, derandomize=True, max_examples=30)
@given(data=st.data())
def test_real_spaces_reach_any_sparsity_within_half_an_mlp_unit(space: Space, data: st.DataObject) -> None:
    sparsity = data.draw(st.floats(0.0, space.sparsity(space.smallest())))
    budget = Budget.from_sparsity(space, sparsity)
    proposal = data.draw(proposals(space))
    profile = budget.project(proposal.attention, proposal.mlp).profile
    assert budget.holds(profile)
    tolerance = 0.5000001 * space.block_params / space.prunable_params(space.dense())
    assert abs(space.sparsity(profile) - sparsity) <= tolerance + 1 / space.prunable_params(space.dense())
    assert budget.project(profile.attention, profile.mlp).profile == profile


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.65])
@pytest.mark.parametrize("space", [SMOLLM2, LLAMA_70B])
def test_an_even_proposal_is_cut_by_the_same_share_everywhere(space: Space, sparsity: float) -> None:
    profile = Budget.from_sparsity(space, sparsity).project(space.dense().attention, space.dense().mlp).profile
    for part in PARTS:
        widths = profile.widths(part)
        assert max(widths) - min(widths) <= 1
        assert sum(widths) / (space.n_layers * space.units(part)) == pytest.approx(1 - sparsity, abs=0.01)


def test_a_part_at_its_bounds_leaves_the_whole_change_to_the_other() -> None:
    lowest, highest = (1,) * 30, (48,) * 30
    cut = Budget(SMOLLM2, SMOLLM2.params(Profile((2,) * 30, lowest))).project((3,) * 30, lowest)
    assert cut.profile == Profile((2,) * 30, lowest) and cut.changed_units == 30
    grown = Budget(SMOLLM2, SMOLLM2.params(Profile((2,) * 30, highest))).project((1,) * 30, highest)
    assert grown.profile == Profile((2,) * 30, highest) and grown.moved == pytest.approx(30 * 294_912 / 55_296)
    blocks = Budget(SMOLLM2, SMOLLM2.params(Profile((3,) * 30, (20,) * 30))).project((3,) * 30, lowest)
    assert blocks.profile == Profile((3,) * 30, (20,) * 30)


@pytest.mark.parametrize("group_params", [2, 4, 9, 18, 22, 40, 100])
def test_every_target_of_a_small_space_is_hit_whatever_an_attention_unit_weighs(group_params: int) -> None:
    space = Space(2, 3, 5, group_params, 9, 10, 8)
    starts = [
        space.dense(),
        space.smallest(),
        Profile((3, 1), (1, 5)),
        Profile((1, 1), (5, 5)),
        Profile((3, 3), (1, 1)),
    ]
    gaps = 0
    for target in range(space.params(space.smallest()), space.params(space.dense()) + 1):
        try:
            budget = Budget(space, target)
        except ImpossibleTargetError:
            gaps += 1
            continue
        for start in starts:
            found = budget.project(start.attention, start.mlp)
            assert budget.holds(found.profile)
            assert found.moved <= least_distance(budget, start) + 1 + 1e-9
    assert (gaps > 0) == (group_params > 9 * (2 * 4 + 1))


@property_test
@given(budgets())
def test_the_totals_are_exactly_those_of_the_profiles_that_hold_the_budget(budget: Budget) -> None:
    space, profiles = budget.space, every_profile(budget.space)
    holding = profiles[2 * (params(space, profiles) - budget.target_params).abs() <= space.block_params]
    groups, blocks = holding[:, : space.n_layers].sum(1), holding[:, space.n_layers :].sum(1)
    assert set(budget.totals) == set(zip(groups.tolist(), blocks.tolist(), strict=True))


def test_a_held_part_leaves_the_change_to_the_other() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    start = Profile((3,) * 30, (38,) * 30)
    assert sum(budget.project(start.attention, start.mlp).profile.attention) < 90
    held = budget.project(start.attention, start.mlp, {(layer, "attention") for layer in range(30)})
    assert held.profile.attention == start.attention and budget.holds(held.profile)


def test_the_last_unit_of_a_repair_does_not_always_fall_on_the_same_layer() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    base = budget.project((3,) * 30, (48,) * 30).profile
    touched = set()
    for layer in range(30):
        mlp = list(base.mlp)
        mlp[layer] -= 2
        repaired = budget.project(base.attention, mlp, {(layer, "mlp")}).profile
        assert repaired.mlp[layer] == base.mlp[layer] - 2
        touched |= {other for other in range(30) if repaired.mlp[other] > mlp[other]}
    assert len(touched) > 10


@pytest.mark.parametrize("start", range(5))
def test_a_projection_of_eighty_layers_holds_its_budget(start: int) -> None:
    budget = Budget(LLAMA_70B, parse_params("49B"))
    attention, mlp = [1 + (start + i) % 8 for i in range(80)], [1 + (start + 37 * i) % 224 for i in range(80)]
    assert budget.holds(budget.project(attention, mlp).profile)


def test_a_profile_outside_the_space_is_not_on_the_budget_whatever_it_costs() -> None:
    budget = Budget(SMALL, SMALL.params(Profile((4, 1, 1), (12, 6, 6))))
    assert budget.holds(Profile((4, 1, 1), (12, 6, 6)))
    assert not budget.holds(Profile((4, 1, 1), (13, 6, 5)))
    assert not budget.holds(Profile((6, 0, 0), (12, 6, 6)))


@property_test
@given(st.data())
def test_an_exchange_of_attention_for_mlp_units_leads_to_every_total_that_holds_and_to_no_other(
    data: st.DataObject,
) -> None:
    budget = data.draw(budgets())
    proposal = data.draw(proposals(budget.space))
    start = budget.project(proposal.attention, proposal.mlp).profile
    groups, blocks = sum(start.attention), sum(start.mlp)
    assert budget.settle(start) == start
    possible = range(budget.space.n_layers, budget.space.n_layers * budget.space.n_groups + 1)
    reached = {(total, blocks + change) for total in possible for change in budget.exchange(start, total - groups)}
    assert reached == set(budget.totals)


@pytest.mark.parametrize(("attention", "mlp", "part"), [([1] * 3, [1] * 2, "mlp"), ([1] * 2, [1] * 3, "attention")])
def test_a_proposal_of_the_wrong_length_is_refused(attention: list[int], mlp: list[int], part: str) -> None:
    with pytest.raises(ToolError, match=f"{part} needs 3 widths, one a layer, and got 2"):
        Budget.from_sparsity(SMALL, 0.3).project(attention, mlp)


def test_what_is_held_is_not_counted_among_what_shares_the_change() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    held = {(layer, part) for layer in range(15) for part in PARTS}
    profile = budget.project(SMOLLM2.dense().attention, SMOLLM2.dense().mlp, held).profile
    cut = {part: 1 - sum(profile.widths(part)[15:]) / (15 * SMOLLM2.units(part)) for part in PARTS}
    assert cut["attention"] == pytest.approx(0.6, abs=0.012) and cut["mlp"] == pytest.approx(0.6, abs=0.012)
