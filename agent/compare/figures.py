"""The arms of a comparison put in order, and two arms side by side: all figures of its tables, page and sentences.

Arms are ranked by the geometric mean of perplexity over all sparsities and reporting texts, and only those that were
measured at every sparsity: a mean over other sparsities is a mean of something else.

Pairs are runs at one sparsity and seed; a closed form, which has no seed, is paired with every seed of the other arm.
A curve is a staircase: pairs of (cost in tokens, best fitness from there on), costs rising and fitness falling.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from self_pruner.agent.compare.kinds import ArmKind, base_name, kind_of, searched_on
from self_pruner.agent.compare.results import CurvePoint, Results, RunResult, TextResult
from self_pruner.tools.profiles.statistics import (
    IntervalEstimate,
    PairedTest,
    mean_interval,
    paired_test,
    stratified_mean,
)
from self_pruner.tools.text.quantities import counted

Curve = list[tuple[float, float]]
PairedDifferences = dict[float, list[float | None]]  # by sparsity; None where a run of the pair has no figure
ROUNDING = 1e-9  # relative: a mean of the same numbers in another order is no worse


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run: the mean over texts of KL, or of the logarithm of perplexity."""

    name: str
    texts: Callable[[RunResult], Sequence[TextResult]]
    value: Callable[[TextResult], float]
    log: bool  # whether `value` is a logarithm, so that differences are ratios


def _log_perplexity(text: TextResult) -> float:
    return math.log(text.perplexity) if text.perplexity > 0 else math.inf


PERPLEXITY = Measure("perplexity", lambda run: run.texts, _log_perplexity, log=True)
RECALIBRATED = Measure("recalibrated perplexity", lambda run: run.recalibrated, _log_perplexity, log=True)
KL = Measure("KL", lambda run: run.texts, lambda text: text.kl, log=False)
MEASURES = (PERPLEXITY, KL, RECALIBRATED)


@dataclass(frozen=True)
class ComparedArms:
    """Reads `results`."""

    results: Results

    @cached_property
    def arms(self) -> list[str]:
        """Arms with at least one finished run, in the order in which they were asked for."""
        run = {one.arm for one in self.results.runs}
        return [arm for arm in self.results.arms if arm in run] + sorted(run - set(self.results.arms))

    @cached_property
    def sparsities(self) -> list[float]:
        return sorted({run.sparsity for run in self.results.runs})

    @cached_property
    def texts(self) -> list[str]:
        """The reporting texts, as the user named them."""
        return [text.text for text in self.results.dense]

    def runs(self, arm: str, sparsity: float | None = None) -> list[RunResult]:
        """The runs of an arm by sparsity and seed."""
        own = [run for run in self.results.runs if run.arm == arm and sparsity in (None, run.sparsity)]
        return sorted(own, key=lambda run: (run.sparsity, run.seed))

    def seeds(self, arm: str) -> int:
        """The most runs that it has at one sparsity."""
        return max((len(self.runs(arm, sparsity)) for sparsity in self.sparsities), default=0)

    def value(self, run: RunResult, measure: Measure) -> float | None:
        """The mean over all reporting texts; None where the run was not measured, or not finite, on each."""
        known = {one.text: measure.value(one) for one in measure.texts(run)}
        values = [known[name] for name in self.texts if name in known]
        return fmean(values) if values and len(values) == len(self.texts) and all(map(math.isfinite, values)) else None

    def estimate(self, arm: str, sparsity: float | None, measure: Measure) -> IntervalEstimate | None:
        """Over the seeds at one sparsity, or at all of them, each counting the same; None where one has no figure.

        Perplexities are geometric means.
        """
        strata = []
        for each in self.sparsities if sparsity is None else [sparsity]:
            found = [self.value(run, measure) for run in self.runs(arm, each)]
            strata.append([value for value in found if value is not None])
            if not found or len(strata[-1]) < len(found):  # a mean over the others would flatter it
                return None
        if not strata:
            return None
        mean = stratified_mean(strata)
        return mean.exp() if measure.log else mean

    def on_text(self, arm: str, sparsity: float | None, name: str, measure: Measure) -> IntervalEstimate | None:
        """The mean over seeds on one text, of KL or of perplexity itself; over all sparsities that is geometric."""
        strata = []
        for each in self.sparsities if sparsity is None else [sparsity]:
            runs = self.runs(arm, each)
            strata.append([one for run in runs for one in measure.texts(run) if one.text == name])
            if not runs or len(strata[-1]) < len(runs):
                return None
        if measure.log and sparsity is not None:
            return mean_interval([one.perplexity for one in strata[0]])
        mean = stratified_mean([[measure.value(one) for one in found] for found in strata])
        return mean.exp() if measure.log else mean

    @cached_property
    def ranked(self) -> list[str]:
        """The arms measured at every sparsity, the best first."""
        known = {arm: self.estimate(arm, None, PERPLEXITY) for arm in self.arms}
        places = {arm: found.value for arm, found in known.items() if found is not None}
        return sorted(places, key=lambda arm: (places[arm], self.arms.index(arm)))

    @cached_property
    def ordered(self) -> list[str]:
        """All arms, the ranked ones first."""
        return [*self.ranked, *(arm for arm in self.arms if arm not in self.ranked)]

    def best(self, kind: ArmKind | None = None, base: str | None = None) -> str | None:
        """The best arm of a kind or a name, whatever prompts and settings were added to it; ranked ones first."""
        fitting = (arm for arm in self.ordered if kind in (None, self.kind(arm)) and base in (None, base_name(arm)))
        return next(fitting, None)

    @cached_property
    def headline(self) -> str | None:
        """The arm that the others are compared with: `hybrid`, else the best with a brain, else the best that searches.

        Where `hybrid` itself was compared it is that one, even if a variant did better: the best of several flatters.
        """
        if "hybrid" in self.arms and self.kind("hybrid") == "brain":
            return "hybrid"
        asked = self.best("brain", "hybrid") or self.best("brain")
        return asked or self.best(base="hybrid") or self.best("search") or self.best()

    def searched_on(self, arm: str) -> tuple[int, str]:
        """The tokens and texts of an arm's final fitness under the settings that all share."""
        return searched_on(arm, self.results.settings)

    def kind(self, arm: str) -> ArmKind:
        """What an arm is under the settings that all share."""
        return kind_of(arm, self.results.settings)


# --- over seeds ---------------------------------------------------------------------------------------------------


def over_seeds(compared: ComparedArms, arm: str, baseline: str, measure: Measure) -> PairedTest | None:
    """`arm` less `baseline` over pairs of runs, by sparsity; None where there is no pair, or one was not measured.

    Below zero `arm` is better. For perplexity these are differences of logarithms.
    """
    return tested(arm, baseline, differences(compared, arm, baseline, measure))


def tested(arm: str, baseline: str, found: PairedDifferences) -> PairedTest | None:
    """The same of their differences.

    Where a pair was not measured a test of the others would be one of the survivors.
    """
    strata = [[value for value in stratum if value is not None] for stratum in found.values()]
    if not strata or unmeasured(found):
        return None
    if kind_of(arm) == kind_of(baseline) == "closed form":  # nothing is left to chance: nothing to test
        values = [value for stratum in strata for value in stratum]
        return PairedTest(fmean(values), None, None, len(values), None, None, exact=False)
    return paired_test(strata)


def differences(compared: ComparedArms, arm: str, baseline: str, measure: Measure) -> PairedDifferences:
    """`arm` less `baseline`, a pair of runs each, at every sparsity at which there is a pair."""

    def difference(one: RunResult, other: RunResult) -> float | None:
        own, theirs = compared.value(one, measure), compared.value(other, measure)
        return None if own is None or theirs is None else own - theirs

    pairs = {sparsity: paired_runs(compared, arm, baseline, sparsity) for sparsity in compared.sparsities}
    return {sparsity: [difference(*pair) for pair in found] for sparsity, found in pairs.items() if found}


def unmeasured(found: PairedDifferences) -> str:
    """How many pairs were not measured, in words; empty where each was."""
    values = [value for stratum in found.values() for value in stratum]
    count = sum(value is None for value in values)
    verb = "was" if count == 1 else "were"
    return f"{count} of {counted(len(values), 'pair')} of runs {verb} not measured" if count else ""


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


def staircases(compared: ComparedArms, arm: str, sparsity: float) -> list[Curve]:
    """The curve of every run of an arm that searches."""
    if kind_of(arm) == "closed form":
        return []
    return [best_so_far(_whole_curve(run)) for run in compared.runs(arm, sparsity) if run.curve]


def _whole_curve(run: RunResult) -> list[CurvePoint]:
    """The curve with what was found: records of before lack the last generation where tokens or minutes ran out."""
    last = run.curve[-1]
    known = [] if run.fitness is None else [last.model_copy(update={"fitness": min(run.fitness, last.fitness)})]
    return [*run.curve, *known]


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
    """The mean staircase of at least one run, from where all have begun; one that has ended stays where it was."""

    def level(curve: Curve, cost: float) -> float:
        return curve[bisect_right(curve, cost, key=lambda point: point[0]) - 1][1]

    start = max(curve[0][0] for curve in curves)
    costs = sorted({cost for curve in curves for cost, _ in curve if cost >= start})
    return [(cost, fmean(level(curve, cost) for curve in curves)) for cost in costs]


def first_reached(curve: Curve, target: float) -> float | None:
    """The cost at which the curve is first at `target` or better; None where it never is."""
    limit = target + ROUNDING * abs(target)
    return next((cost for cost, fitness in curve if fitness <= limit), None)


def reach(own: Sequence[Curve], others: Sequence[Curve]) -> float | None:
    """What share of the tokens that `others` took to their end `own` took to be as good, as means over seeds.

    Infinite where they never were, and None where either has no curve.
    """
    if not own or not others:
        return None
    theirs = mean_curve(others)
    spent, target = theirs[-1]
    needed = first_reached(mean_curve(own), target)
    return math.inf if needed is None else needed / (first_reached(theirs, target) or spent)
