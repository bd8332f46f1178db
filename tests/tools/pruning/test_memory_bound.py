"""A memo for passes that ask for the same things in the same order, within a bound in bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from self_pruner.tools.pruning.memory_bound import MemoryBound


class Makes:
    """Makes items of 40 bytes in a memo, and counts how often."""

    def __init__(self, limit: int) -> None:
        self.memo, self.count = MemoryBound(limit), 0

    def __call__(self, key: object, **options: bool) -> Tensor:
        def make() -> Tensor:
            self.count += 1
            return torch.zeros(10)

        return self.memo.get(key, make, **options)

    def found(self, key: object) -> bool:
        before = self.count
        self(key)
        return self.count == before


def test_what_is_remembered_is_made_once():
    get = Makes(1000)
    assert get("a") is get("a")
    assert (get.count, get.memo.used) == (1, 40)


def test_what_exceeds_the_bound_is_handed_out_but_not_kept():
    memo = MemoryBound(100)
    assert memo.get("a", lambda: torch.zeros(26)).shape == (26,)
    assert memo.used == 0 and len(memo) == 0


def test_a_pass_over_more_than_fits_finds_what_fitted_of_the_one_before():
    get = Makes(4 * 40)
    for number in range(5):
        before = get.count
        get.memo.start_pass()
        for key in range(10):
            get(key)
        assert get.count - before == (6 if number else 10)  # with the longest unused going first it is always ten
        assert get.memo.used == 160


def test_what_a_pass_does_not_ask_for_makes_room_longest_unused_first():
    get = Makes(3 * 40)
    for keys in ("abc", "b", "cd"):
        get.memo.start_pass()
        for key in keys:
            get(key)
    assert [get.found(key) for key in "bcd"] == [True, True, True] and get.memo.used == 120


def test_what_is_cheap_takes_free_room_only_and_makes_room_for_the_rest():
    get = Makes(2 * 40)
    get.memo.start_pass()
    get("cheap", cheap=True)
    get("a")
    get("b")  # in the same pass
    assert get.found("a") and get.found("b")
    get.memo.start_pass()
    get("cheap", cheap=True)
    assert get.found("a") and get.found("b")


def test_where_nothing_that_may_go_is_enough_nothing_goes():
    get = Makes(100)
    get("old")
    get.memo.start_pass()
    get("new")
    get.memo.get("large", lambda: torch.zeros(20))
    assert get.found("old") and get.found("new")


def test_what_is_given_up_is_gone_and_half_as_much_is_kept_from_then_on():
    get = Makes(1000)
    for key in range(6):
        get(key)
    assert get.memo.give_up() and get.memo.used == len(get.memo) == 0
    for key in range(6):
        get(key)
    assert get.memo.used == 120
    assert get.memo.give_up() and not MemoryBound(1000).give_up()
