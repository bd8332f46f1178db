"""Every operator makes what it says, on budget where it says so, and the same again from the same generator."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import (
    Edit,
    apply_edits,
    crossover_mask,
    crossover_range,
    level_switch,
    mutate,
    random_profile,
    uniform,
)
from self_pruner.tools.profiles.space import Space
from tests.tools.profiles.small_spaces import LLAMA_70B, SMALL, SMOLLM2

LIGHT_GROUPS = Space(3, 4, 12, 5, 9, 1000, 8)
EQUAL_UNITS = Space(3, 4, 12, 9, 9, 0, 8)
SPACES = [SMOLLM2, LLAMA_70B, SMALL, LIGHT_GROUPS, EQUAL_UNITS]


def changes(before: Profile, after: Profile) -> dict[tuple[int, Part], int]:
    return {
        (layer, part): new - old
        for part in PARTS
        for layer, (old, new) in enumerate(zip(before.widths(part), after.widths(part), strict=True))
        if new != old
    }


@pytest.mark.parametrize("space", SPACES)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(sparsity=st.floats(0.05, 0.6), seed=st.integers(0, 2**32), step=st.integers(1, 12))
def test_a_level_switch_moves_units_between_two_places_and_stays_on_budget(
    space: Space, sparsity: float, seed: int, step: int
) -> None:
    budget = Budget.from_sparsity(space, sparsity)
    parent = random_profile(budget, random.Random(seed))
    child = level_switch(budget, parent, random.Random(seed), step)
    assert budget.holds(child)
    moved = changes(parent, child)
    assert len(moved) == 2 and sorted(change > 0 for change in moved.values()) == [False, True]
    most = max(step + 1, budget.group_in_blocks * 1.5 + 1)  # a group may outweigh the step, then it is one group
    for (_, part), change in moved.items():
        assert abs(change) * space.unit_params(part) / space.block_params <= most + budget.group_in_blocks / 2


def test_level_switches_move_every_kind_of_place_in_both_directions() -> None:
    budget, rng = Budget.from_sparsity(SMOLLM2, 0.3), random.Random(0)
    parent = uniform(budget)
    seen = set()
    for _ in range(400):
        moved = changes(parent, level_switch(budget, parent, rng, step=5))
        giver = next(place for place, change in moved.items() if change < 0)
        taker = next(place for place, change in moved.items() if change > 0)
        seen.add((giver[1], taker[1]))
    assert seen == {(giver, taker) for giver in PARTS for taker in PARTS}


def test_small_steps_choose_heavy_attention_units_less_often() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    parent = uniform(budget)

    def attention_switches(step: int) -> int:
        rng = random.Random(1)
        drawn = [changes(parent, level_switch(budget, parent, rng, step)) for _ in range(200)]
        return sum(any(part == "attention" for _, part in moved) for moved in drawn)

    assert attention_switches(1) < attention_switches(6)


def test_the_last_layers_are_switched_as_often_as_the_first() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    parent, rng, third = uniform(budget), random.Random(2), SMOLLM2.n_layers // 3
    layers = [layer for _ in range(600) for layer, _ in changes(parent, level_switch(budget, parent, rng, 5))]
    last_over_first = sum(layer >= 2 * third for layer in layers) / sum(layer < third for layer in layers)
    assert last_over_first == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("space", SPACES)
def test_a_mutant_is_another_profile_on_budget_and_the_same_for_the_same_seed(space: Space) -> None:
    budget = Budget.from_sparsity(space, 0.3)
    parent = uniform(budget)
    for seed in range(30):
        mutant = mutate(budget, parent, random.Random(seed), step=2, switches=3)
        assert budget.holds(mutant) and mutant != parent
        assert mutant == mutate(budget, parent, random.Random(seed), step=2, switches=3)


def test_a_mutant_of_one_switch_changes_two_places() -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    parent = uniform(budget)
    assert all(len(changes(parent, mutate(budget, parent, random.Random(seed)))) == 2 for seed in range(30))


def test_a_budget_with_a_single_profile_has_no_switch_and_says_so() -> None:
    budget = Budget.from_sparsity(SMALL, 0.0)
    with pytest.raises(ToolError, match="no unit of"):
        level_switch(budget, SMALL.dense(), random.Random(0))


def test_a_switch_from_off_the_budget_is_refused() -> None:
    with pytest.raises(ToolError, match="project it first"):
        level_switch(Budget.from_sparsity(SMALL, 0.3), SMALL.dense(), random.Random(0))


@pytest.mark.parametrize("space", SPACES)
def test_random_profiles_hold_the_budget_and_are_uneven_at_several_scales(space: Space) -> None:
    budget, rng = Budget.from_sparsity(space, 0.3), random.Random(0)
    profiles = [random_profile(budget, rng) for _ in range(60)]
    assert all(budget.holds(profile) for profile in profiles)
    spreads = [(max(profile.mlp) - min(profile.mlp)) / space.n_blocks for profile in profiles]
    assert min(spreads) < 0.25 < 0.5 < max(spreads)
    assert len(set(profiles)) > 35  # a small space repeats itself
    again = random.Random(0)
    assert profiles == [random_profile(budget, again) for _ in range(60)]


def test_random_profiles_cut_attention_and_mlp_alike_on_average() -> None:
    budget, rng = Budget.from_sparsity(SMOLLM2, 0.3), random.Random(0)
    profiles = [random_profile(budget, rng) for _ in range(100)]
    assert sum(sum(profile.attention) for profile in profiles) / (100 * 30 * 3) == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5])
def test_the_uniform_profile_keeps_the_same_share_everywhere(space: Space, sparsity: float) -> None:
    budget = Budget.from_sparsity(space, sparsity)
    profile = uniform(budget)
    assert budget.holds(profile)
    for part in PARTS:
        assert max(profile.widths(part)) - min(profile.widths(part)) <= 1


def test_crossover_takes_layers_of_the_second_parent_where_asked() -> None:
    a, b = Profile((1, 2, 3, 4), (10, 20, 30, 40)), Profile((5, 6, 7, 8), (50, 60, 70, 80))
    assert crossover_range(a, b, 1, 2) == Profile((1, 6, 7, 4), (10, 60, 70, 40))
    assert crossover_range(a, b, 0, 3) == b
    assert crossover_mask(a, b, [True, False, False, True]) == Profile((5, 2, 3, 8), (50, 20, 30, 80))


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (2, 1), (0, 3)])
def test_a_crossover_range_outside_the_layers_is_refused(first: int, last: int) -> None:
    with pytest.raises(ToolError, match="within 0 to 2"):
        crossover_range(SMALL.dense(), SMALL.smallest(), first, last)


def test_a_crossover_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ToolError, match="3, 3 and 2"):
        crossover_mask(SMALL.dense(), SMALL.smallest(), [True, False])


def test_edits_add_up_and_may_leave_the_space_for_the_projection_to_repair() -> None:
    edits = [Edit(0, "mlp", -3), Edit(2, "attention", 1), Edit(0, "mlp", -1)]
    assert apply_edits(SMALL, Profile((2, 2, 4), (6, 6, 6)), edits) == Profile((2, 2, 5), (2, 6, 6))


def test_an_edit_of_a_missing_layer_is_refused() -> None:
    with pytest.raises(ToolError, match="there is no layer 3: layers are 0 to 2"):
        apply_edits(SMALL, SMALL.dense(), [Edit(3, "mlp", -1)])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    layer=st.integers(0, 29),
    part=st.sampled_from(PARTS),
    change=st.sampled_from([-8, -4, -2, -1, 1, 2, 4, 8]),
)
def test_one_edit_survives_its_repair(seed: int, layer: int, part: Part, change: int) -> None:
    budget = Budget.from_sparsity(SMOLLM2, 0.3)
    parent = random_profile(budget, random.Random(seed))
    proposal = apply_edits(SMOLLM2, parent, [Edit(layer, part, change)])
    child = budget.project(proposal.attention, proposal.mlp, {(layer, part)}).profile
    wanted = min(max(parent.widths(part)[layer] + change, 1), SMOLLM2.units(part))
    assert child.widths(part)[layer] == wanted
