"""Rules of thumb are on budget, keep whole what they say, and cut all else alike."""

import pytest

from self_pruner.memory.errors import ToolError
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.rules import ENDS, STEEPNESS, arithmetic, ends, llm_pruner
from self_pruner.tools.profiles.space import Space

SMOL = Space(
    n_layers=30, n_groups=3, n_blocks=48, group_params=294912, block_params=55296, fixed_params=28346688, mlp_unit=32
)
SPARSITIES = (0.2, 0.3, 0.5)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("first", "last"), [(0, 0), *ENDS])
def test_attention_and_ends_are_whole_and_the_other_mlps_alike(sparsity, first, last):
    budget = Budget.from_sparsity(SMOL, sparsity)
    found = ends(budget, first, last)
    assert budget.holds(found)
    assert set(found.attention) == {SMOL.n_groups}
    whole, others = (*found.mlp[:first], *found.mlp[30 - last :]), found.mlp[first : 30 - last]
    assert set(whole) <= {SMOL.n_blocks}
    assert max(others) - min(others) <= 1


def test_a_budget_too_small_for_what_is_whole_takes_from_it():
    budget = Budget.from_sparsity(SMOL, 0.85)
    found = ends(budget, 4, 3)
    assert budget.holds(found)
    assert sum(found.attention) < 90
    assert set(found.mlp[4:27]) == {1}


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (20, 11)])
def test_layers_that_are_not_there_cannot_be_whole(first, last):
    with pytest.raises(ToolError, match=r"^-?\d+ first and \d+ last layers cannot be whole in a model of 30$"):
        ends(Budget.from_sparsity(SMOL, 0.3), first, last)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_llm_pruner_leaves_four_and_two_layers_whole_and_cuts_the_others_alike(sparsity):
    budget = Budget.from_sparsity(SMOL, sparsity)
    found = llm_pruner(budget)
    assert budget.holds(found)
    assert found.attention[:4] + found.attention[28:] == (3,) * 6
    assert found.mlp[:4] + found.mlp[28:] == (48,) * 6
    assert max(found.mlp[4:28]) - min(found.mlp[4:28]) <= 1
    assert max(found.attention[4:28]) - min(found.attention[4:28]) <= 1


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("steepness", STEEPNESS)
def test_rates_rise_with_depth_by_one_difference(sparsity, steepness):
    budget = Budget.from_sparsity(SMOL, sparsity)
    found = arithmetic(budget, steepness)
    assert budget.holds(found)
    reach = steepness * min(sparsity, 1 - sparsity)
    expected = [48 * (1 - sparsity - reach * (layer - 14.5) / 14.5) for layer in range(30)]
    off = [width - wanted for width, wanted in zip(found.mlp, expected, strict=True)]
    free = [one for one, width in zip(off, found.mlp, strict=True) if 1 < width < 48]
    assert max(free) - min(free) < 3  # rounding, and a repair that is the same in all layers
    assert list(found.attention) == sorted(found.attention, reverse=True)


def test_no_difference_is_nearly_uniform():
    budget = Budget.from_sparsity(SMOL, 0.3)
    flat = arithmetic(budget, 0.0)
    assert max(flat.mlp) - min(flat.mlp) <= 2


@pytest.mark.parametrize("steepness", [-0.1, 1.5])
def test_a_steepness_beyond_what_rates_allow_is_refused(steepness):
    with pytest.raises(ToolError, match="^the steepness of rates must be 0 to 1, not "):
        arithmetic(Budget.from_sparsity(SMOL, 0.3), steepness)
