"""The speed-up of a model too large for the memory at hand, from a few of its layers.

A request takes a fixed time (embedding, norm, head) and that of its layers, which are alike in the dense model. Two
depths of it give both; a pruned model of the deeper one, timed in turn with it, gives what its layers take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from self_pruner.tools.latency.measure import LatencyReport
from self_pruner.tools.latency.shapes import Sizes

# Times a request on layers of these sizes and on dense ones of the same number, in turn.
Pair = Callable[[Sequence[Sizes]], LatencyReport]


@dataclass(frozen=True, slots=True)
class Depth:
    """What the dense model takes, in milliseconds: all layers and the rest."""

    layers: int  # of the whole model
    timed: int  # layers that were timed
    fixed: float
    layer: float

    @property
    def whole(self) -> float:
        """The dense model."""
        return self.fixed + self.layers * self.layer

    @property
    def share_of_layers(self) -> float:
        """How much of it pruning can reach."""
        return 1.0 - self.fixed / self.whole

    def speedup(self, ratio: float) -> float:
        """Of the whole model, where `ratio` is that of the timed layers and the rest."""
        timed = self.fixed + self.timed * self.layer
        layer = max(timed / ratio - self.fixed, 0.0) / self.timed
        return self.whole / (self.fixed + self.layers * layer)


def depth_of(layers: int, timed: int, deep: float, shallow: float) -> Depth:
    """From the milliseconds of `timed` dense layers and of half as many; all layers need no second depth.

    Args:
        layers: of the whole model.
        timed: of the deeper one.
        deep: milliseconds of that.
        shallow: milliseconds of half as many layers.
    """
    layer = max((deep - shallow) / (timed - timed // 2), 0.0)
    return Depth(layers, timed, max(deep - timed * layer, 0.0), layer)


def some_of(sizes: Sequence[Sizes], count: int, weight: Callable[[Sizes], float]) -> list[Sizes]:
    """So many layers, evenly apart from the lightest to the heaviest: the same mean, as nearly as that can be."""
    ordered = sorted(sizes, key=lambda one: (weight(one), one))
    return [ordered[round((place + 0.5) * len(ordered) / count - 0.5)] for place in range(count)]
