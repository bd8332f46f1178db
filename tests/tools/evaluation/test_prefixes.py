from __future__ import annotations

import torch

from self_pruner.tools.evaluation.prefixes import PrefixStates, depths_to_keep


def test_the_least_recently_used_state_makes_room() -> None:
    states, rows = PrefixStates(3 * 4), range(1)
    for width in (1, 2, 3):
        assert states.put(rows, (width,), torch.zeros(1))
    assert states.deepest(rows, (1, 9))[0] == 1
    assert states.put(rows, (4,), torch.zeros(1))
    assert [states.deepest(rows, (width,))[0] for width in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert states.held_bytes == 12


def test_the_deepest_of_several_states_is_found_and_all_on_the_way_stay() -> None:
    states, rows = PrefixStates(4 * 4), range(2, 3)
    kept = {prefix: torch.zeros(1) for prefix in [(1,), (1, 2, 3), (1, 2, 4), (5,)]}
    for prefix, state in kept.items():
        states.put(rows, prefix, state)
    depth, state = states.deepest(rows, (1, 2, 3, 4))
    assert (depth, state is kept[1, 2, 3]) == (3, True)
    for width in (6, 7):
        states.put(rows, (width,), torch.zeros(1))
    assert [states.deepest(rows, prefix)[0] for prefix in kept] == [1, 3, 1, 0]


def test_a_state_larger_than_the_bound_is_not_kept_and_drives_nothing_out() -> None:
    states = PrefixStates(8)
    states.put(range(1), (1,), torch.zeros(1))
    assert not states.put(range(1), (2,), torch.zeros(3))
    assert (len(states), states.held_bytes) == (1, 4)


def test_a_state_put_twice_is_held_once() -> None:
    states = PrefixStates(8)
    states.put(range(1), (1,), torch.zeros(1))
    states.put(range(1), (1,), torch.ones(1))
    assert (len(states), states.held_bytes) == (1, 4)
    states.discard(range(1), (1,))
    states.discard(range(1), (1,))
    assert (len(states), states.held_bytes) == (0, 0)


def test_states_of_another_origin_are_dropped() -> None:
    states = PrefixStates(8)
    states.come_from("model")
    states.put(range(1), (1,), torch.zeros(1))
    states.come_from("model")
    assert len(states) == 1
    states.come_from("another")
    assert (len(states), states.held_bytes) == (0, 0)


def test_depths_fit_the_room_and_are_as_many_as_do() -> None:
    counts = [min(16, 2 + depth // 2) for depth in range(60)]
    for room in (1, 20, 100, 300, 10_000):
        depths = depths_to_keep(counts, room)
        assert sum(counts[depth - 1] for depth in depths) <= room
        assert all(0 < depth < 60 for depth in depths)
    assert depths_to_keep(counts, 1) == frozenset()
    assert depths_to_keep(counts, 10_000) == frozenset(range(1, 60))
    sizes = [len(depths_to_keep(counts, room)) for room in (20, 100, 300)]
    assert sizes == sorted(sizes) and sizes[0] > 0


def test_depths_save_a_child_of_random_moves_more_than_equal_distances_do() -> None:
    def repeated(depths: frozenset[int]) -> float:
        moves = [min(a, b) for a in range(60) for b in range(60)]
        return sum(move - max((depth for depth in depths if depth <= move), default=0) for move in moves) / len(moves)

    for number in (3, 7, 14):
        equal = frozenset(round(60 * k / (number + 1)) for k in range(1, number + 1))
        found = depths_to_keep([1] * 60, number)
        assert len(found) == number
        assert repeated(found) < repeated(equal)
