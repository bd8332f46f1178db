"""The budget of models whose layers are all of one width, against every such profile."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.sensitivity import Costs, closed_form
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.profiles.uniform_budget import UniformBudget
from tests.tools.profiles.small_spaces import SMALL, SMOLLM2


def budget(space: Space, sparsity: float, heads: frozenset[int] = frozenset()) -> UniformBudget:
    return UniformBudget(space, Budget.from_sparsity(space, sparsity).target_params, heads)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.builds(
        Space,
        n_layers=st.integers(1, 4),
        n_groups=st.integers(1, 5),
        n_blocks=st.integers(1, 12),
        group_params=st.integers(1, 60),
        block_params=st.integers(1, 20),
        fixed_params=st.just(77),
        mlp_unit=st.just(8),
    ),
    st.floats(0, 1),
)
def test_it_holds_every_profile_of_one_width_within_half_a_step_and_no_other(space, share):
    low, high = space.params(space.smallest()), space.params(space.dense())
    target = round(low + share * (high - low))
    step = space.n_layers * space.block_params
    every = [
        Profile((groups,) * space.n_layers, (blocks,) * space.n_layers)
        for groups in range(1, space.n_groups + 1)
        for blocks in range(1, space.n_blocks + 1)
    ]
    within = [profile for profile in every if 2 * abs(space.params(profile) - target) <= step]
    try:
        found = UniformBudget(space, target)
    except ImpossibleTargetError:
        assert not within
        return
    assert set(found.profiles) <= set(within)
    # two are within half a step only where the target lies exactly between them
    assert {profile.attention for profile in found.profiles} == {profile.attention for profile in within}
    assert all(found.holds(profile) for profile in found.profiles)


def test_a_proposal_becomes_the_profile_that_leans_as_it_does():
    made = budget(SMOLLM2, 0.3)
    assert [profile.attention[0] for profile in made.profiles] == [1, 2, 3]
    dense = SMOLLM2.dense()
    assert uniform(made).attention == (2,) * 30  # 70% of 3
    assert made.project(dense.attention, (1,) * 30).profile.attention == (3,) * 30
    assert made.project((1,) * 30, dense.mlp).profile.attention == (1,) * 30
    mixed = made.project((1, 3) * 15, (40, 26) * 15)
    assert made.holds(mixed.profile)
    assert mixed.changed_units > 0


def test_a_projection_counts_every_unit_and_weighs_groups_as_parameters_do():
    made = budget(SMALL, 0.3)  # a group of 48 parameters beside MLP units of 9
    proposal = Profile((1, 4, 2), (3, 12, 9))
    found = made.project(proposal.attention, proposal.mlp)
    groups = sum(abs(new - old) for new, old in zip(found.profile.attention, proposal.attention, strict=True))
    blocks = sum(abs(new - old) for new, old in zip(found.profile.mlp, proposal.mlp, strict=True))
    assert groups > 1 and blocks > 1
    assert found.changed_units == groups + blocks
    assert found.moved == pytest.approx(groups * 48 / 9 + blocks)
    again = made.project(found.profile.attention, found.profile.mlp)
    assert again.profile == found.profile and again.changed_units == again.moved == 0


def test_the_smallest_and_the_dense_profile_are_reached_and_nothing_beyond_them():
    low, high = SMALL.params(SMALL.smallest()), SMALL.params(SMALL.dense())
    assert UniformBudget(SMALL, low).profiles == (SMALL.smallest(),)
    assert UniformBudget(SMALL, high).profiles == (SMALL.dense(),)
    for beyond in (low - 1, high + 1):  # within half a step, and yet no such model
        with pytest.raises(ImpossibleTargetError, match="layers of one width: this model can keep"):
            UniformBudget(SMALL, beyond)


def test_the_closed_form_is_the_cheapest_of_them():
    made = budget(SMOLLM2, 0.3)
    dear_attention = Costs(((9.0, 6.0, 3.0, 0.0),) * 30, (tuple(float(48 - width) / 100 for width in range(49)),) * 30)
    assert closed_form(made, dear_attention).attention == (3,) * 30
    dear_mlp = Costs(((0.03, 0.02, 0.01, 0.0),) * 30, (tuple(float(48 - width) for width in range(49)),) * 30)
    assert closed_form(made, dear_mlp).attention == (1,) * 30


def test_only_allowed_head_counts_are_taken():
    def heads(allowed: frozenset[int]) -> list[int]:
        return [profile.attention[0] for profile in budget(SMALL, 0.3, allowed).profiles]

    assert heads(frozenset()) == [3, 4]
    assert heads(frozenset({1, 2, 4})) == [4]


def test_a_target_between_the_steps_or_outside_is_refused_with_what_can_be_kept():
    with pytest.raises(ImpossibleTargetError, match="with 4 attention units a layer: this model can keep"):
        budget(SMALL, 0.75, frozenset({4}))
    with pytest.raises(ImpossibleTargetError, match="with 3, 4 attention units a layer"):
        budget(SMALL, 0.75, frozenset({4, 3}))
    with pytest.raises(ImpossibleTargetError, match="layers of one width: this model can keep"):
        UniformBudget(SMALL, 10)


def test_a_proposal_of_the_wrong_length_is_refused():
    with pytest.raises(ToolError, match="mlp needs 3 widths, one a layer, and got 2"):
        budget(SMALL, 0.3).project((1, 1, 1), (1, 1))
    with pytest.raises(ToolError, match="attention needs 3 widths, one a layer, and got 4"):
        budget(SMALL, 0.3).project((1, 1, 1, 1), (1, 1, 1))
