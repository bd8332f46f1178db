"""What a population shares: the trie of its profiles, in integers.

The widths of a profile, read attention of layer 0, MLP of layer 0, attention of layer 1 and so on, spell a path.
Profiles whose paths agree so far have the same hidden state, so a population needs one block evaluation a node of the
trie, where its candidates one by one need one a node and user. What an earlier walk left is not needed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from self_pruner.memory.profile import PARTS, Part, Profile


@dataclass(frozen=True, slots=True)
class TrieNode:
    """One distinct hidden state of a population: a block of some width that `users` candidates pass together."""

    layer: int
    part: Part
    width: int
    users: int


@dataclass(slots=True)
class WalkCounters:
    """How much work sharing saved, in block-tokens: one token through one attention or one MLP block."""

    computed: int = 0
    kept: int = 0  # computed by an earlier walk, which kept the states
    alone: int = 0  # what evaluating each candidate by itself would have computed

    @property
    def within(self) -> int:
        """What candidates of one walk saved by passing a block together."""
        return self.alone - self.computed - self.kept

    @property
    def sharing(self) -> float:
        """Block-tokens alone over block-tokens computed."""
        return self.alone / self.computed if self.computed else 1.0


def path(profile: Profile) -> tuple[int, ...]:
    """The widths of a profile in the order of computation."""
    return tuple(width for layer in zip(*(profile.widths(part) for part in PARTS), strict=True) for width in layer)


def by_width(profiles: Sequence[Profile], layer: int, part: Part) -> list[tuple[int, list[Profile]]]:
    """Profiles grouped by one of their widths, in the order of first appearance."""
    groups: dict[int, list[Profile]] = {}
    for profile in profiles:
        groups.setdefault(profile.widths(part)[layer], []).append(profile)
    return list(groups.items())


def trie(profiles: Sequence[Profile], starts: Mapping[Profile, int] | None = None) -> Iterator[list[TrieNode]]:
    """The distinct blocks of a population, one list a sublayer; the users of a list add up to len(profiles).

    Args:
        profiles: the population.
        starts: sublayers that each profile need not pass, because an earlier walk did. Blocks that nobody has to pass
            are left out, so that users add up to less.
    """
    starts = starts or {}
    groups = [list(profiles)] if profiles else []
    for layer in range(profiles[0].n_layers if profiles else 0):
        for number, part in enumerate(PARTS):
            nodes: list[TrieNode] = []
            children: list[list[Profile]] = []
            for group in groups:
                for width, users in by_width(group, layer, part):
                    children.append(users)
                    if any(starts.get(user, 0) <= 2 * layer + number for user in users):
                        nodes.append(TrieNode(layer, part, width, len(users)))
            groups = children
            yield nodes


def turns(sequences: range, sequence_bytes: int, memory: int) -> list[range]:
    """Equal runs of `sequences`, short enough for states of `sequence_bytes` a sequence to stay within `memory`."""
    number = math.ceil(len(sequences) / max(1, memory // sequence_bytes))
    step = math.ceil(len(sequences) / number)
    return [sequences[at : at + step] for at in range(0, len(sequences), step)]
