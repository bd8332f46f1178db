"""Two arms side by side: what they come to, what it costs to come there, and what the brain adds to chance.

Pairs are runs at one sparsity and seed; a closed form, which has no seed, is paired with every seed of the other arm.
A curve is a staircase: pairs of (cost in tokens, best fitness from there on), costs rising and fitness falling.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from self_pruner.agent.compare.figures import ComparedArms, Measure, kind_of
from self_pruner.agent.compare.results import CurvePoint, ProposerYield, RunResult
from self_pruner.agent.compare.statistics import (
    ALPHA,
    IntervalEstimate,
    PairedTest,
    TwoShares,
    exact_test,
    paired_test,
    share_difference,
    stratified_difference,
    untested,
)
from self_pruner.agent.settings.arms import OFFSPRING_PROPOSERS

Curve = list[tuple[float, float]]
ROUNDING = 1e-9  # relative: a mean of the same numbers in another order is no worse
BRAIN, CHANCE = "brain", "chance"
OPERATORS = ("initialise", "crossover", "mutation")

# --- over seeds ---------------------------------------------------------------------------------------------------


def over_seeds(compared: ComparedArms, arm: str, baseline: str, measure: Measure) -> PairedTest | None:
    """`arm` less `baseline` over pairs of runs, by sparsity; None where no pair was measured.

    Below zero `arm` is better. For perplexity these are differences of logarithms.
    """
    strata = []
    for sparsity in compared.sparsities:
        pairs = paired_runs(compared, arm, baseline, sparsity)
        values = [(compared.value(one, measure), compared.value(other, measure)) for one, other in pairs]
        strata.append([one - other for one, other in values if one is not None and other is not None])
    strata = [stratum for stratum in strata if stratum]
    if not strata:
        return None
    if kind_of(arm) == kind_of(baseline) == "closed form":
        return untested([value for stratum in strata for value in stratum])
    return paired_test(strata)


def paired_runs(compared: ComparedArms, arm: str, baseline: str, sparsity: float) -> list[tuple[RunResult, RunResult]]:
    """Runs of the same seed; a closed form's one run beside every run of the other arm."""
    own, others = compared.runs(arm, sparsity), compared.runs(baseline, sparsity)
    if kind_of(arm) == "closed form" and own:
        return [(own[0], other) for other in (others[:1] if kind_of(baseline) == "closed form" else others)]
    if kind_of(baseline) == "closed form" and others:
        return [(one, others[0]) for one in own]
    by_seed = {run.seed: run for run in others}
    return [(one, by_seed[one.seed]) for one in own if one.seed in by_seed]


# --- in tokens ----------------------------------------------------------------------------------------------------


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


def reach(own: Sequence[Curve], others: Sequence[Curve]) -> float | None:
    """What share of the tokens that `others` took to their end `own` took to be as good, as means over seeds.

    Infinite where they never were, and None where either has no curve.
    """
    mine, theirs = mean_curve(own), mean_curve(others)
    if not mine or not theirs:
        return None
    spent, target = theirs[-1]
    needed = first_reached(mine, target)
    return math.inf if needed is None else needed / (first_reached(theirs, target) or spent)


def reached(compared: ComparedArms, arm: str, baseline: str) -> dict[float, float]:
    """The share of `baseline`'s tokens in which `arm` had its final fitness, by sparsity; see `reach`."""
    found = {}
    for sparsity in compared.sparsities:
        share = reach(staircases(compared, arm, sparsity), staircases(compared, baseline, sparsity))
        if share is not None:
            found[sparsity] = share
    return found


def staircases(compared: ComparedArms, arm: str, sparsity: float) -> list[Curve]:
    """The curve of every run of an arm that searches."""
    if kind_of(arm) == "closed form":
        return []
    return [best_so_far(run.curve) for run in compared.runs(arm, sparsity) if run.curve]


def _level(curve: Curve, cost: float) -> float:
    return curve[bisect_right(curve, cost, key=lambda point: point[0]) - 1][1]


# --- who proposed what improved -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrainWorth:
    """The brain's choices beside random ones among the same legal moves, in runs that have both."""

    brain: TwoShares  # pooled: the brain's improvements and comparisons, then chance's
    pooled: IntervalEstimate  # difference of the shares
    within: IntervalEstimate | None  # the same within runs, and generations where they are known
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
        return "better" if (self.within or self.pooled).value > 0 else "worse"

    @property
    def shares(self) -> tuple[float, float]:
        """The share of improving candidates: the brain's and chance's."""
        return self.brain.hits / self.brain.n, self.brain.other_hits / self.brain.other_n


def pooled_yields(compared: ComparedArms, arm: str) -> list[ProposerYield]:
    """Of all runs of an arm, by proposer and operator, proposers in the order in which arms name them."""
    kinds: dict[tuple[str, str], list[ProposerYield]] = {}
    for one in (one for run in compared.runs(arm) for one in run.yields):
        kinds.setdefault((one.proposed_by, one.operator), []).append(one)
    return [
        ProposerYield(
            proposed_by=proposer,
            operator=operator,
            made=sum(one.made for one in own),
            compared=sum(one.compared for one in own),
            improved=sum(one.improved for one in own),
            survived=sum(one.survived for one in own),
        )
        for (proposer, operator), own in sorted(
            kinds.items(), key=lambda kind: (_place(OFFSPRING_PROPOSERS, kind[0][0]), _place(OPERATORS, kind[0][1]))
        )
    ]


def brain_worth(runs: Sequence[RunResult]) -> BrainWorth | None:
    """The worth of the brain in `runs`; None where no run has candidates of both the brain and chance to compare."""
    strata = [one for run in runs for one in _strata(run.yields) if one.n and one.other_n]
    if not strata:
        return None
    counts = [(one.hits, one.n, one.other_hits, one.other_n) for one in strata]
    total = TwoShares(*map(sum, zip(*counts, strict=True)))
    pooled = share_difference(total)
    assert pooled is not None  # both groups have members
    return BrainWorth(total, pooled, stratified_difference(strata), *exact_test(strata), len(strata))


def _strata(rows: Sequence[ProposerYield]) -> list[TwoShares]:
    """The brain's and chance's counts, a stratum for each generation where it is known."""
    found = []
    for generation in dict.fromkeys(one.generation for one in rows):
        counts = []
        for proposer in (BRAIN, CHANCE):
            own = [one for one in rows if one.proposed_by == proposer and one.generation == generation]
            counts += [sum(one.improved for one in own), sum(one.compared for one in own)]
        found.append(TwoShares(*counts))
    return found


def _place(known: Sequence[str], name: str) -> tuple[int, str]:
    """Where `name` stands among the known ones; others come last, by their names."""
    return (known.index(name), "") if name in known else (len(known), name)
