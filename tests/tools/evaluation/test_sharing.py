from __future__ import annotations

import random

from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.evaluation.sharing import TrieNode, WalkCounters, path, trie, turns
from self_pruner.tools.profiles.space import Space
from tests.tools.evaluation.populations import population


def prefixes(profiles: list[Profile], sublayer: int) -> set[tuple[int, ...]]:
    """Distinct paths through `sublayer` sublayers, spelled out."""
    return {
        tuple(profile.widths(part)[layer] for layer in range(profile.n_layers) for part in PARTS)[:sublayer]
        for profile in profiles
    }


def test_there_is_one_node_a_distinct_prefix_and_every_profile_passes_every_sublayer() -> None:
    space = Space(3, 4, 12, 100, 10, 0, 8)
    for seed in range(20):
        profiles = population(space, 9, random.Random(seed))
        sublayers = list(trie(profiles))
        assert len(sublayers) == 6
        for depth, nodes in enumerate(sublayers, start=1):
            assert len(nodes) == len(prefixes(profiles, depth))
            assert sum(node.users for node in nodes) == len(profiles)


def test_profiles_that_differ_in_the_mlp_share_the_attention_of_that_layer() -> None:
    first = Profile((2, 2), (5, 5))
    nodes = list(trie([first, first.with_width(0, "mlp", 6)]))
    assert nodes[0] == [TrieNode(0, "attention", 2, 2)]
    assert nodes[1] == [TrieNode(0, "mlp", 5, 1), TrieNode(0, "mlp", 6, 1)]
    assert [len(each) for each in nodes] == [1, 2, 2, 2]


def test_profiles_that_meet_again_after_parting_do_not_share() -> None:
    first = Profile((2, 2), (5, 5))
    assert [len(each) for each in trie([first, first.with_width(0, "attention", 1)])] == [2, 2, 2, 2]


def test_nobody_shares_nothing() -> None:
    assert list(trie([])) == []


def test_a_path_reads_the_widths_in_the_order_of_computation() -> None:
    assert path(Profile((1, 2), (3, 4))) == (1, 3, 2, 4)


def test_blocks_that_nobody_has_to_pass_are_left_out() -> None:
    first = Profile((2, 2), (5, 5))
    second = first.with_width(1, "attention", 1)  # parts after two blocks
    assert [len(each) for each in trie([first, second], {first: 2, second: 1})] == [0, 1, 2, 2]
    assert [len(each) for each in trie([first, second], {first: 4, second: 2})] == [0, 0, 1, 1]
    assert [len(each) for each in trie([first, second], {first: 4})] == [1, 1, 1, 1]


def test_what_was_saved_is_either_kept_or_shared_within_the_walk() -> None:
    counters = WalkCounters(computed=5, kept=3, alone=10)
    assert (counters.within, counters.sharing) == (2, 2.0)


def test_turns_are_equal_and_within_the_memory_but_for_one_sequence() -> None:
    assert turns(range(2, 9), 10, 70) == [range(2, 9)]
    assert turns(range(7), 10, 40) == [range(0, 4), range(4, 7)]
    assert turns(range(3), 10, 5) == [range(0, 1), range(1, 2), range(2, 3)]
