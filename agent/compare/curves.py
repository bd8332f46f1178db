"""Best fitness so far against cost, and what it costs one arm to reach what another ended with.

A curve is a staircase: pairs of (cost in tokens, best fitness from there on), costs rising and fitness falling.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from self_pruner.agent.compare.results import CurvePoint

Curve = list[tuple[float, float]]
ROUNDING = 1e-9  # relative: a mean of the same numbers in another order is no worse


@dataclass(frozen=True, slots=True)
class Reach:
    """What it cost one arm to be as good as another was at its end, both as means over their seeds."""

    target: float  # the other's final best fitness
    needed: float | None  # tokens at which this arm first had it; None where it never did
    theirs: float  # tokens at which the other first had it
    spent: float  # tokens that the other had spent at its end

    @property
    def share(self) -> float | None:
        """Tokens needed over those that the other needed; below one this arm was faster."""
        return None if self.needed is None or not self.theirs else self.needed / self.theirs


def best_so_far(points: Sequence[CurvePoint]) -> Curve:
    """The staircase of one run; the last point stays even where it improves nothing, for it says what was spent."""
    curve: Curve = []
    for point in sorted(points, key=lambda point: point.cost):
        best = min(point.fitness, curve[-1][1]) if curve else point.fitness
        if curve and curve[-1][0] == point.cost:
            curve.pop()
        curve.append((point.cost, best))
    return curve


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean staircase, from where all have begun; a run that has ended stays where it was."""
    begun = [curve for curve in curves if curve]
    if not begun:
        return []
    start = max(curve[0][0] for curve in begun)
    costs = sorted({cost for curve in begun for cost, _ in curve if cost >= start})
    return [(cost, fmean(_level(curve, cost) for curve in begun)) for cost in costs]


def first_reached(curve: Curve, target: float) -> float | None:
    """The cost at which the curve is first at `target` or better; None where it never is."""
    limit = target + ROUNDING * abs(target)
    return next((cost for cost, fitness in curve if fitness <= limit), None)


def reach(own: Sequence[Curve], others: Sequence[Curve]) -> Reach | None:
    """What it cost the runs `own` to be as good as `others` were at their end; None where either has no curve."""
    mine, theirs = mean_curve(own), mean_curve(others)
    if not mine or not theirs:
        return None
    cost, target = theirs[-1]
    return Reach(target, first_reached(mine, target), first_reached(theirs, target) or cost, cost)


def _level(curve: Curve, cost: float) -> float:
    return curve[bisect_right(curve, cost, key=lambda point: point[0]) - 1][1]
