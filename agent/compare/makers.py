"""Who made the candidates and what became of them, over the runs of a comparison; the worth of the brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from self_pruner.agent.arms import MAKERS
from self_pruner.agent.compare.figures import Figures
from self_pruner.agent.compare.proportions import TwoShares, exact_test, mantel_haenszel, newcombe, wilson
from self_pruner.agent.compare.results import MakerYield, RunResult
from self_pruner.agent.compare.statistics import ALPHA, Estimate

BRAIN, CHANCE = "brain", "chance"
OPERATORS = ("initialise", "crossover", "mutation")


@dataclass(frozen=True, slots=True)
class Yield:
    """What one maker's candidates came to in all runs of an arm."""

    arm: str
    maker: str
    operator: str
    made: int
    survived: int
    hits: int  # of those compared, better than the better parent
    improved: Estimate | None  # their share; None where none was compared

    @property
    def compared(self) -> int:
        """Candidates measured beside their parents."""
        return self.improved.n if self.improved else 0


@dataclass(frozen=True, slots=True)
class Worth:
    """The brain's choices beside random ones among the same legal moves, in runs that have both."""

    brain: TwoShares  # pooled: the brain's improvements and comparisons, then chance's
    pooled: Estimate  # difference of the shares
    within: Estimate | None  # the same within runs, and generations where they are known
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


def yields(comparison: Figures) -> list[Yield]:
    """By arm, maker and operator, makers in the order in which arms name them."""
    found = []
    for arm in comparison.ordered:
        rows = [one for run in comparison.runs(arm) for one in run.yields]
        keys = sorted({(one.maker, one.operator) for one in rows}, key=_order)
        for maker, operator in keys:
            own = [one for one in rows if (one.maker, one.operator) == (maker, operator)]
            made, survived = sum(one.made for one in own), sum(one.survived for one in own)
            hits, compared = sum(one.improved for one in own), sum(one.compared for one in own)
            found.append(Yield(arm, maker, operator, made, survived, hits, wilson(hits, compared)))
    return found


def worth(runs: Sequence[RunResult]) -> Worth | None:
    """The worth of the brain in `runs`; None where no run has candidates of both the brain and chance to compare."""
    strata = [one for run in runs for one in _strata(run.yields)]
    strata = [one for one in strata if one.n and one.other_n]
    if not strata:
        return None
    total = TwoShares(
        sum(one.hits for one in strata),
        sum(one.n for one in strata),
        sum(one.other_hits for one in strata),
        sum(one.other_n for one in strata),
    )
    pooled = newcombe(total)
    assert pooled is not None  # both groups have members
    return Worth(total, pooled, mantel_haenszel(strata), *exact_test(strata), len(strata))


def _strata(rows: Sequence[MakerYield]) -> list[TwoShares]:
    """The brain's and chance's counts, a stratum for each generation where it is known."""
    found = []
    for generation in sorted({one.generation for one in rows}, key=lambda number: -1 if number is None else number):
        counts = []
        for maker in (BRAIN, CHANCE):
            own = [one for one in rows if one.maker == maker and one.generation == generation]
            counts += [sum(one.improved for one in own), sum(one.compared for one in own)]
        found.append(TwoShares(*counts))
    return found


def _order(key: tuple[str, str]) -> tuple[int, str, int]:
    maker, operator = key
    known: Sequence[str] = MAKERS
    place = known.index(maker) if maker in known else len(known)
    return place, maker, OPERATORS.index(operator) if operator in OPERATORS else len(OPERATORS)
