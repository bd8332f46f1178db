"""Two arms side by side, told apart in two ways that answer two questions.

Over seeds: would the arm be better with another seed? Pairs of runs at one sparsity and seed; a closed form, which has
no seed, is paired with every seed of the other arm. Over text: are these two profiles really different, or would other
text have ranked them otherwise? Pairs of sequences; there are many of them, so this is much sharper, but it speaks of
two single profiles and of no other seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from self_pruner.agent.compare.curves import Curve, Reach, best_so_far, reach
from self_pruner.agent.compare.figures import KL, Figures, Measure, chosen, kind_of
from self_pruner.agent.compare.results import RunResult
from self_pruner.agent.compare.statistics import (
    Estimate,
    PairedTest,
    mean_interval,
    paired_test,
    stratified_mean,
    untested,
)


def over_seeds(comparison: Figures, arm: str, rival: str, measure: Measure) -> PairedTest | None:
    """`arm` less `rival` over pairs of runs, by sparsity; None where no pair was measured. Below zero `arm` is better.

    For perplexity these are differences of logarithms.
    """
    strata = []
    for sparsity in comparison.sparsities:
        pairs = paired_runs(comparison, arm, rival, sparsity)
        values = [(comparison.value(one, measure), comparison.value(other, measure)) for one, other in pairs]
        strata.append([one - other for one, other in values if one is not None and other is not None])
    strata = [stratum for stratum in strata if stratum]
    if not strata:
        return None
    if kind_of(arm) == kind_of(rival) == "closed form":
        return untested([value for stratum in strata for value in stratum])
    return paired_test(strata)


def paired_runs(comparison: Figures, arm: str, rival: str, sparsity: float) -> list[tuple[RunResult, RunResult]]:
    """Runs of the same seed; a closed form's one run beside every run of the other arm."""
    own, others = comparison.runs(arm, sparsity), comparison.runs(rival, sparsity)
    if kind_of(arm) == "closed form" and own:
        return [(own[0], other) for other in (others[:1] if kind_of(rival) == "closed form" else others)]
    if kind_of(rival) == "closed form" and others:
        return [(one, others[0]) for one in own]
    by_seed = {run.seed: run for run in others}
    return [(one, by_seed[one.seed]) for one in own if one.seed in by_seed]


@dataclass(frozen=True, slots=True)
class TextDifference:
    """One profile less another on the same sequences; None where they were not measured on the same."""

    sparsity: float
    text: str  # "" for the mean over all texts
    kl: Estimate
    ratio: Estimate  # of perplexities
    seeds: tuple[int, int]


def over_text(comparison: Figures, arm: str, rival: str) -> list[TextDifference]:
    """The chosen run of each arm, sequence by sequence: each text and their mean, at every sparsity that both have."""
    found = []
    for sparsity in comparison.sparsities:
        one, other = chosen(comparison.runs(arm, sparsity)), chosen(comparison.runs(rival, sparsity))
        if one is not None and other is not None:
            found += _sequences(comparison, one, other)
    return found


def _sequences(comparison: Figures, one: RunResult, other: RunResult) -> list[TextDifference]:
    kl: dict[str, list[float]] = {}
    nll: dict[str, list[float]] = {}
    for name in comparison.texts:
        mine, theirs = comparison.text(one, name), comparison.text(other, name)
        if mine is None or theirs is None:
            continue
        kl[name] = _less(mine.kl_by_sequence, theirs.kl_by_sequence)
        nll[name] = _less(mine.nll_by_sequence, theirs.nll_by_sequence)
    names = [name for name in kl if kl[name] and nll[name]]
    seeds = (one.seed, other.seed)
    found = [
        TextDifference(one.sparsity, name, mean_interval(kl[name]), mean_interval(nll[name]).exp(), seeds)
        for name in names
    ]
    if len(names) == len(comparison.texts) > 1:
        means = stratified_mean([kl[name] for name in names]), stratified_mean([nll[name] for name in names])
        found.append(TextDifference(one.sparsity, "", means[0], means[1].exp(), seeds))
    return found


def _less(own: Sequence[float], others: Sequence[float]) -> list[float]:
    if len(own) != len(others):
        return []
    differences = [one - other for one, other in zip(own, others, strict=True)]
    return differences if all(map(math.isfinite, differences)) else []


def reached(comparison: Figures, arm: str, rival: str) -> dict[float, Reach]:
    """What it cost `arm` to be as good as `rival` at its end on the search's own text, by sparsity."""
    found = {}
    for sparsity in comparison.sparsities:
        one = reach(staircases(comparison, arm, sparsity), staircases(comparison, rival, sparsity))
        if one is not None:
            found[sparsity] = one
    return found


def staircases(comparison: Figures, arm: str, sparsity: float) -> list[Curve]:
    """The curve of every run of an arm that searches."""
    if kind_of(arm) == "closed form":
        return []
    return [best_so_far(run.curve) for run in comparison.runs(arm, sparsity) if run.curve]


def mean_share(found: dict[float, Reach]) -> float | None:
    """The geometric mean over sparsities of the shares of tokens; None where one was not reached or there is none."""
    shares = [one.share for one in found.values()]
    known = [share for share in shares if share]
    return geometric_mean(known) if known and len(known) == len(shares) else None


@dataclass(frozen=True, slots=True)
class Gap:
    """How much worse an arm is on other text than on what it was searched on: ratios of KL, over seeds."""

    arm: str
    sparsity: float
    fitness: Estimate
    unseen: Estimate | None  # tokens of the same text that the search never saw, over those it saw
    texts: dict[str, Estimate]  # every reporting text, over the tokens that it saw


def gaps(comparison: Figures) -> list[Gap]:
    """Of every arm at every sparsity where the fitness is known."""
    found = []
    for sparsity in comparison.sparsities:
        for arm in comparison.ordered:
            known = [(run, run.fitness) for run in comparison.runs(arm, sparsity) if run.fitness]
            if not known:
                continue
            unseen = [_log_ratio(run.unseen, fitness) for run, fitness in known]
            texts = {}
            for name in comparison.texts:
                kls = [(comparison.text(run, name, KL), fitness) for run, fitness in known]
                texts[name] = _ratio([_log_ratio(text.kl if text else None, fitness) for text, fitness in kls])
            found.append(
                Gap(
                    arm,
                    sparsity,
                    mean_interval([fitness for _, fitness in known]),
                    _ratio(unseen),
                    {name: ratio for name, ratio in texts.items() if ratio is not None},
                )
            )
    return found


def _log_ratio(value: float | None, fitness: float) -> float | None:
    return math.log(value / fitness) if value and value > 0 and fitness > 0 else None


def _ratio(logs: Sequence[float | None]) -> Estimate | None:
    known = [value for value in logs if value is not None]
    return mean_interval(known).exp() if known else None
