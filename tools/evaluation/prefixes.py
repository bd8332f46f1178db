"""Kept prefixes: a parent's hidden states serve its children in a later population walk.

A child agrees with its parent up to the first width that differs, and so does its hidden state. A walk therefore leaves
some of its states in a memory-bounded store, and later walks begin every candidate at the deepest kept state on its
path. Who will be a parent is not known while a generation is measured, so states of all candidates are kept alike, at
few enough depths that those of a generation fit; the least recently used make room.

A state is kept as it was computed, for the very sequences that passed the blocks together, so a walk that begins at it
repeats the arithmetic of a walk without it to the last bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from torch import Tensor

Path = tuple[int, ...]  # widths in the order of computation: attention of layer 0, MLP of layer 0, attention of ...


class PrefixStates:
    """Hidden states by (sequences, prefix of widths), least recently used out first, within a number of bytes."""

    def __init__(self, memory_bytes: int) -> None:
        """Keep up to `memory_bytes` of states; 0 keeps none."""
        self.memory_bytes = memory_bytes
        self.held_bytes = 0
        self._states: OrderedDict[tuple[range, Path], Tensor] = OrderedDict()
        self._origin: Hashable = None

    def __len__(self) -> int:
        return len(self._states)

    def come_from(self, origin: Hashable) -> None:
        """Say what states are computed from now on; states that came from anything else are dropped."""
        if origin != self._origin:
            self.clear()
            self._origin = origin

    def deepest(self, rows: range, path: Path) -> tuple[int, Tensor | None]:
        """The deepest kept state on a candidate's path, and how many sublayers it has passed; (0, None) without any.

        The state [n, length, hidden] is shared: it must not be written to. All states on the way to it count as used.
        """
        found: tuple[int, Tensor | None] = (0, None)
        for depth in range(1, len(path) + 1):
            key = (rows, path[:depth])
            if key in self._states:
                self._states.move_to_end(key)
                found = (depth, self._states[key])
        return found

    def put(self, rows: range, prefix: Path, state: Tensor) -> bool:
        """Keep `state` [n, length, hidden] of `rows` after the blocks of `prefix`; whether the bound allowed it.

        The tensor itself is kept, not a copy: from here on it must not be written to.
        """
        if state.nbytes > self.memory_bytes:
            return False
        self.discard(rows, prefix)
        while self.held_bytes + state.nbytes > self.memory_bytes:
            _, oldest = self._states.popitem(last=False)
            self.held_bytes -= oldest.nbytes
        self._states[rows, prefix] = state
        self.held_bytes += state.nbytes
        return True

    def discard(self, rows: range, prefix: Path) -> None:
        """Drop one state if it is there."""
        state = self._states.pop((rows, prefix), None)
        if state is not None:
            self.held_bytes -= state.nbytes

    def clear(self) -> None:
        self._states.clear()
        self.held_bytes = 0

    def keep_within(self, memory_bytes: int) -> None:
        """Keep up to `memory_bytes` from here on."""
        self.memory_bytes = memory_bytes
        while self.held_bytes > memory_bytes:
            _, oldest = self._states.popitem(last=False)
            self.held_bytes -= oldest.nbytes

    def switch_off(self) -> bool:
        """Drop all states and keep none any more; whether that freed anything."""
        freed = bool(self._states)
        self.clear()
        self.memory_bytes = 0
        return freed


def depths_to_keep(states: Sequence[int], room: int) -> frozenset[int]:
    """The sublayers after which a walk keeps its states: as many as there is room for, closer together at the start.

    A child moves units between two places, so it leaves its parent at the earlier of them: at share x of the depth with
    density 2 (1 - x). The least work is repeated where the distance between kept depths goes with the inverse root of
    that density, which puts the k-th of K at 1 - (1 - k / (K + 1)) ** (2 / 3) of the depth. After the last sublayer,
    where only the same candidate could begin, nothing is kept.

    Args:
        states: distinct states of the population after 1, 2, ... sublayers.
        room: states to keep in all.

    Returns:
        Depths, counted in sublayers passed.
    """
    n = len(states)
    for number in range(n - 1, 0, -1):
        depths = [0]
        for k in range(1, number + 1):
            depths.append(max(depths[-1] + 1, round(n * (1.0 - (1.0 - k / (number + 1)) ** (2 / 3)))))
        if sum(states[depth - 1] for depth in depths[1:]) <= room:
            return frozenset(depths[1:])
    return frozenset()
