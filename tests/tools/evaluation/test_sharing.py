from __future__ import annotations

import random

from memory.profile import PARTS, Profile
from tests.tools.evaluation.populations import population
from tools.evaluation.sharing import TrieNode, trie
from tools.pruning.space import Space


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
