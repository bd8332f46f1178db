"""The arms of a comparison put in order: figures by arm and sparsity, with intervals over seeds, ranked.

Arms are ranked by the geometric mean of perplexity over all sparsities and reporting texts, and only those that were
measured at every sparsity: a mean over other sparsities is a mean of something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from self_pruner.agent.compare.results import Results, RunResult, TextResult
from self_pruner.agent.compare.statistics import IntervalEstimate, mean_interval, stratified_mean
from self_pruner.agent.settings.arms import ARMS

ArmKind = Literal["closed form", "search", "brain"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run: the mean over texts of KL, or of the logarithm of perplexity."""

    name: str
    texts: Callable[[RunResult], Sequence[TextResult]]
    value: Callable[[TextResult], float]
    log: bool  # whether `value` is a logarithm, so that differences are ratios


PERPLEXITY = Measure("perplexity", lambda run: run.texts, lambda text: _log(text.perplexity), log=True)
RECALIBRATED = Measure(
    "recalibrated perplexity", lambda run: run.recalibrated, lambda text: _log(text.perplexity), log=True
)
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

    def values(self, arm: str, sparsity: float, measure: Measure) -> list[float]:
        """That of every run of an arm at one sparsity, as far as there is one."""
        found = [self.value(run, measure) for run in self.runs(arm, sparsity)]
        return [value for value in found if value is not None]

    def estimate(self, arm: str, sparsity: float | None, measure: Measure) -> IntervalEstimate | None:
        """Over the seeds at one sparsity, or at all of them, each counting the same; None where one has no figure.

        Perplexities are geometric means.
        """
        strata = [self.values(arm, each, measure) for each in (self.sparsities if sparsity is None else [sparsity])]
        if not all(strata) or not strata:
            return None
        found = stratified_mean(strata)
        return found.exp() if measure.log else found

    def on_text(self, arm: str, sparsity: float | None, name: str, measure: Measure) -> IntervalEstimate | None:
        """The mean over seeds on one text, of KL or of perplexity itself; over all sparsities that is geometric."""
        strata = []
        for each in self.sparsities if sparsity is None else [sparsity]:
            found = [one for run in self.runs(arm, each) for one in measure.texts(run) if one.text == name]
            if not found:
                return None
            strata.append(found)
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

    def others(self, arm: str) -> list[str]:
        """All arms but one, the ranked ones first."""
        return [other for other in self.ordered if other != arm]

    def best(self, kind: ArmKind | None = None, base: str | None = None) -> str | None:
        """The best arm of a kind or a name, whatever prompts and settings were added to it; ranked ones first."""
        fitting = (arm for arm in self.ordered if kind in (None, kind_of(arm)) and base in (None, base_name(arm)))
        return next(fitting, None)

    @cached_property
    def headline(self) -> str | None:
        """The arm that the others are compared with: `hybrid`, else the best with a brain, else the best that searches.

        Where `hybrid` itself was compared it is that one, even if a variant did better: the best of several flatters.
        """
        if "hybrid" in self.arms:
            return "hybrid"
        return self.best(base="hybrid") or self.best("brain") or self.best("search") or self.best()


def base_name(arm: str) -> str:
    """The arm's name without its prompts and settings."""
    return re.split(r"[:+]", arm, maxsplit=1)[0]


def kind_of(arm: str) -> ArmKind:
    """Whether an arm searches, and whether a brain has any say in it: a scripted control in its place is none."""
    known = ARMS.get(base_name(arm))
    if known is None or not known.searches:
        return "closed form" if known else "search"
    scripted = re.search(r"\+brain=(?!(?:self|vllm)\b)", arm)
    return "brain" if known.asks_brain and not scripted else "search"


def chosen(runs: Sequence[RunResult]) -> RunResult | None:
    """The run of these that a user would keep: the best on held-out tokens, which are not those that are reported.

    It is not chosen by the reported figures, which would flatter it.
    """

    def worth(run: RunResult) -> tuple[float, float, int]:
        holdout = math.inf if run.holdout is None else run.holdout
        return (holdout, math.inf if run.fitness is None else run.fitness, run.seed)

    return min(runs, key=worth, default=None)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.inf
