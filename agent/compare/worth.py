"""Who proposed what improved: the brain's choices beside random ones among the same legal moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from self_pruner.agent.compare.results import RunResult
from self_pruner.agent.result.outcome import improvements
from self_pruner.tools.profiles.statistics import (
    ALPHA,
    IntervalEstimate,
    TwoShares,
    exact_test,
    share_difference,
    stratified_difference,
)


@dataclass(frozen=True, slots=True)
class BrainWorth:
    """The brain's choices beside random ones among the same legal moves, in runs that have both."""

    total: TwoShares  # the brain's improvements and comparisons, then chance's
    pooled: IntervalEstimate  # difference of the shares
    within: float  # the same within runs, and generations where they are known
    p: float  # exact test within those strata
    least_p: float  # the smallest that so many candidates allow
    strata: int

    @property
    def verdict(self) -> Literal["better", "worse", "not distinguished", "too few"]:
        """What the test says of the brain, at 5%."""
        if self.least_p > ALPHA:
            return "too few"
        if self.p > ALPHA:
            return "not distinguished"
        return "better" if self.within > 0 else "worse"


def brain_worth(runs: Sequence[RunResult]) -> BrainWorth | None:
    """The worth of the brain in `runs`; None where none has candidates of both the brain and chance to compare.

    Chance is also what stood in for a brain that failed, as in a run's own report.
    """
    strata = []
    for run in runs:
        for generation in dict.fromkeys(one.generation for one in run.yields):
            rows = [one for one in run.yields if one.generation == generation]
            strata.append(TwoShares(*improvements(rows)))
    strata = [one for one in strata if one.n and one.other_n]
    total = TwoShares(
        sum(one.hits for one in strata),
        sum(one.n for one in strata),
        sum(one.other_hits for one in strata),
        sum(one.other_n for one in strata),
    )
    pooled, within = share_difference(total), stratified_difference(strata)
    if pooled is None or within is None:
        return None
    return BrainWorth(total, pooled, within, *exact_test(strata), len(strata))
