"""Which targets there are: those that some profile reaches; any other is refused, and the range is named."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import SettingsError
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError, feasible_range, parse_params
from self_pruner.tools.profiles.space import Space
from tests.tools.profiles.small_spaces import LLAMA_70B, SMALL, SMOLLM2, every_profile, params, property_test, spaces


@property_test
@given(spaces(), st.floats(-0.1, 1.1))
def test_a_target_is_accepted_exactly_when_some_profile_of_the_stated_range_reaches_it(
    space: Space, share: float
) -> None:
    smallest, dense = space.params(space.smallest()), space.params(space.dense())
    target = round(smallest + share * (dense - smallest))
    all_params = params(space, every_profile(space))
    reachable = bool((2 * (all_params - target).abs() <= space.block_params).any())
    if smallest <= target <= dense and reachable:
        budget = Budget(space, target)
        assert budget.holds(budget.project(space.dense().attention, space.dense().mlp).profile)
        return
    with pytest.raises(ImpossibleTargetError) as refusal:
        Budget(space, target)
    assert feasible_range(space) in str(refusal.value)
    assert smallest == all_params.min() and dense == all_params.max()
    if smallest < target < dense:  # a gap: the counts named are real and nothing lies between them
        below, above = all_params[all_params < target].max(), all_params[all_params > target].min()
        assert f"{below:,} and {above:,}" in str(refusal.value)


@property_test
@given(spaces())
def test_the_range_has_no_gap_unless_a_group_outweighs_all_removable_mlp_units(space: Space) -> None:
    smallest, dense = space.params(space.smallest()), space.params(space.dense())
    if space.group_params <= space.block_params * (space.n_layers * (space.n_blocks - 1) + 1):
        for target in range(smallest, dense + 1):
            Budget(space, target)


def test_sparsity_and_parameters_state_the_same_target() -> None:
    by_sparsity = Budget.from_sparsity(LLAMA_70B, 0.3)
    assert Budget(LLAMA_70B, by_sparsity.target_params) == by_sparsity
    assert by_sparsity.sparsity == pytest.approx(0.3)
    assert by_sparsity.group_in_blocks == 6
    assert Budget(LLAMA_70B, parse_params("49B")).sparsity == pytest.approx(0.2918, abs=1e-4)


@pytest.mark.parametrize("space", [SMOLLM2, LLAMA_70B, SMALL])
def test_the_bounds_named_in_a_refusal_are_accepted_and_beyond_them_refused(space: Space) -> None:
    text, n = feasible_range(space), space.n_layers
    low, high = map(parse_params, text.split(" keep ")[1].split(" parameters")[0].split(" to "))
    assert Budget(space, low).project([9] * n, [9] * n).profile == space.smallest()
    assert Budget(space, high).project([1] * n, [1] * n).profile == space.dense()
    for params_beyond in (low - 1, high + 1):
        with pytest.raises(ImpossibleTargetError, match="this model can keep"):
            Budget(space, params_beyond)
    sparsest = float(text.split("sparsity of ")[1].split(" ")[0])
    Budget.from_sparsity(space, sparsest)
    for sparsity in (sparsest + 2e-4, -0.01, 1.0, float("nan"), float("inf")):
        with pytest.raises(ImpossibleTargetError, match=f"sparsity of {sparsest} down to 0"):
            Budget.from_sparsity(space, sparsity)


def test_a_refusal_names_the_target_the_nearest_counts_and_the_range_with_separators() -> None:
    space = Space(1, 2, 3, 100_000, 10, 5_000, 8)
    keeps = "this model can keep 105,010 to 205,030 parameters, a sparsity of 0.5 down to 0"
    with pytest.raises(ImpossibleTargetError) as beyond:
        Budget(space, 205_031)
    assert str(beyond.value) == f"205,031 parameters cannot be reached: {keeps}"
    with pytest.raises(ImpossibleTargetError) as gap:
        Budget(space, 150_000)
    nearest = "the nearest reachable counts are 105,030 and 205,010"
    assert str(gap.value) == f"150,000 parameters fall in a gap, {nearest}: {keeps}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("49B", 49_000_000_000),
        ("134.5M", 134_500_000),
        (" 1.5 b ", 1_500_000_000),
        ("70_000_000_000", 70_000_000_000),
        ("8,030,261,248", 8_030_261_248),
        ("700k", 700_000),
        ("0.001T", 1_000_000_000),
    ],
)
def test_parameter_counts_are_read_exactly(text: str, count: int) -> None:
    assert parse_params(text) == count


@example("0B")
@example("-5B")
@example("49GB")
@example("1e9")
@example("nan")
@example("٣B")
@example("")
@settings(deadline=None, derandomize=True)
@given(st.text(max_size=8).filter(lambda text: not any(digit in text for digit in "123456789")))
def test_text_that_is_no_positive_count_is_refused_and_shown(text: str) -> None:
    with pytest.raises(SettingsError, match="is no parameter count"):
        parse_params(text)
