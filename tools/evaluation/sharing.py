"""What a population shares: the trie of its profiles, in integers.

The widths of a profile, read attention of layer 0, MLP of layer 0, attention of layer 1 and so on, spell a path.
Profiles whose paths agree so far have the same hidden state, so a population needs one block evaluation a node of the
trie, where its candidates one by one need one a node and user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memory.profile import PARTS, Part, Profile


@dataclass(frozen=True, slots=True)
class TrieNode:
    """One distinct hidden state of a population: a block of some width that `users` candidates pass together."""

    layer: int
    part: Part
    width: int
    users: int


def by_width(profiles: Sequence[Profile], layer: int, part: Part) -> list[tuple[int, list[Profile]]]:
    """Profiles grouped by one of their widths, in the order of first appearance."""
    groups: dict[int, list[Profile]] = {}
    for profile in profiles:
        groups.setdefault(profile.widths(part)[layer], []).append(profile)
    return list(groups.items())


def trie(profiles: Sequence[Profile]) -> Iterator[list[TrieNode]]:
    """The distinct blocks of a population, one list a sublayer; the users of a list add up to len(profiles)."""
    groups = [list(profiles)] if profiles else []
    for layer in range(profiles[0].n_layers if profiles else 0):
        for part in PARTS:
            nodes: list[TrieNode] = []
            children: list[list[Profile]] = []
            for group in groups:
                for width, users in by_width(group, layer, part):
                    nodes.append(TrieNode(layer, part, width, len(users)))
                    children.append(users)
            groups = children
            yield nodes
