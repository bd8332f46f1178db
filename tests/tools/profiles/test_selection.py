"""Selection keeps the best, offers every id once and compares only what was measured on the same text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.tools.profiles.selection import better_half, brackets, paired, rank

IDS = [f"c{number}" for number in range(40)]


def test_rank_puts_lower_fitness_first_and_failures_last() -> None:
    fitness = {"c1": 0.5, "c2": float("nan"), "c3": 0.1, "c4": float("inf"), "c5": 0.3}
    assert rank(fitness) == ["c3", "c5", "c1", "c2", "c4"]


def test_rank_does_not_depend_on_the_order_of_equals() -> None:
    assert rank({"b": 1.0, "a": 1.0, "c": 0.5}) == rank({"c": 0.5, "a": 1.0, "b": 1.0}) == ["c", "a", "b"]


@pytest.mark.parametrize(("n", "kept"), [(0, 0), (1, 1), (2, 1), (5, 3), (16, 8)])
def test_the_better_half_is_the_first_half_rounded_up(n: int, kept: int) -> None:
    assert better_half(IDS[:n]) == IDS[:kept]


def test_four_survivors_of_seven_choose_from_the_best_and_three_pairs() -> None:
    assert brackets(list("1234567"), 4) == [["1"], ["2", "3"], ["4", "5"], ["6", "7"]]


def test_a_place_chooses_from_two_ids_unless_told_otherwise() -> None:
    assert brackets(list("123456789"), 3) == [["1"], ["2", "3"], ["4", "5"]]
    assert brackets(list("123456789"), 3, width=3) == [["1"], ["2", "3", "4"], ["5", "6", "7"]]


def test_short_populations_give_the_better_places_the_smaller_choice() -> None:
    assert brackets(list("12345"), 4) == [["1"], ["2"], ["3"], ["4", "5"]]
    assert brackets(list("12"), 4) == [["1"], ["2"]]
    assert brackets([], 4) == []


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 5))
def test_places_chosen_independently_never_repeat_an_id_or_lose_the_best(n: int, survivors: int, width: int) -> None:
    slots = brackets(IDS[:n], survivors, width)
    offered = [id for slot in slots for id in slot]
    assert offered == IDS[: len(offered)]  # by rank, each once, none skipped
    assert len(slots) == min(n, survivors)
    assert slots == [] or slots[0] == IDS[:1]
    assert all(1 <= len(slot) <= width for slot in slots)
    assert len(offered) == min(n, 1 + (survivors - 1) * width)


@pytest.mark.parametrize(("survivors", "width"), [(0, 2), (2, 0)])
def test_no_survivors_or_no_choice_is_refused(survivors: int, width: int) -> None:
    with pytest.raises(ToolError, match="at least 1"):
        brackets(["c1"], survivors, width)


def test_paired_differences_have_the_textbook_mean_and_standard_error() -> None:
    result = paired([1.0, 2.0, 3.0], [1.5, 2.0, 2.0])  # differences -0.5, 0, 1
    assert result.mean == pytest.approx(1 / 6)
    assert result.standard_error == pytest.approx(math.sqrt(7 / 12) / math.sqrt(3))
    assert result.n == 3


def test_pairing_sees_a_small_gain_that_the_spread_between_sequences_hides() -> None:
    parent = [0.2, 1.9, 0.7, 3.1, 1.2]
    result = paired([score - 0.01 for score in parent], parent)
    assert result.mean == pytest.approx(-0.01) and result.standard_error == pytest.approx(0, abs=1e-9)


def test_two_sequences_have_a_standard_error() -> None:
    assert paired([1.0, 3.0], [1.0, 1.0]).standard_error == pytest.approx(1.0)  # differences 0 and 2


def test_one_sequence_has_no_standard_error() -> None:
    assert paired([1.0], [2.0]).standard_error is None


@pytest.mark.parametrize(("child", "parent"), [([], []), ([1.0], [1.0, 2.0])])
def test_different_sequences_cannot_be_paired(child: list[float], parent: list[float]) -> None:
    with pytest.raises(ToolError, match="the same sequences"):
        paired(child, parent)
