"""The tables of a comparison: a header and rows of text each, which the screen, Markdown and the page show alike."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from self_pruner.agent.compare.figures import (
    KL,
    MEASURES,
    PERPLEXITY,
    RECALIBRATED,
    ComparedArms,
    Measure,
    differences,
    paired_runs,
    tested,
    unmeasured,
)
from self_pruner.agent.compare.results import RunResult
from self_pruner.agent.settings.arms import OFFSPRING_PROPOSERS
from self_pruner.tools.profiles.statistics import IntervalEstimate, mean_interval, share_interval

DENSE = "dense"
ABSENT = "-"
OPERATORS = ("initialise", "crossover", "mutation")

# What a run cost and how it went, as the mean of an arm's runs.
COSTS: dict[str, Callable[[RunResult], float]] = {
    "tokens": lambda run: run.cost,
    "evaluated": lambda run: run.evaluated_tokens,
    "probed": lambda run: run.probe_tokens,
    "brain tokens": lambda run: run.brain_tokens,
    "search s": lambda run: run.search_seconds,
    "brain s": lambda run: run.brain_seconds,
    "evaluations": lambda run: run.evaluations,
    "repaired": lambda run: run.repaired,
    "repaired units": lambda run: run.repaired_units,
    "invalid": lambda run: run.invalid,
    "failed turns": lambda run: run.failed_turns,
    "fallbacks": lambda run: run.fallbacks,
}
BRIEF = ("tokens", "brain tokens", "search s", "evaluations", "invalid", "fallbacks", "repaired")


class Table(NamedTuple):
    """The first column are names."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm at one sparsity, or at all of them."""

    arm: str
    sparsity: float | None  # None: the mean over all sparsities, which for perplexity is geometric
    seeds: int
    kl: dict[str, IntervalEstimate | None]  # by reporting text, nats a token
    perplexity: dict[str, IntervalEstimate | None]
    geometric: IntervalEstimate | None  # geometric mean of perplexity over texts
    recalibrated: IntervalEstimate | None  # the same after refitting the profile on its own activations
    costs: dict[str, float] = field(default_factory=dict)  # means of COSTS; empty for the dense model

    @property
    def where(self) -> str:
        """The sparsity in words."""
        if self.arm == DENSE:
            return "0%"
        return "all" if self.sparsity is None else percent(self.sparsity)

    @property
    def mean_kl(self) -> float | None:
        """The mean over texts."""
        known = [one.value for one in self.kl.values() if one is not None]
        return fmean(known) if known and len(known) == len(self.kl) else None


def table_rows(compared: ComparedArms) -> list[ArmRow]:
    """The dense model, then every arm by sparsity, the overall best first; then, of several sparsities, the means."""
    dense = compared.results.dense
    logs = [PERPLEXITY.value(one) for one in dense]
    rows = [
        ArmRow(
            arm=DENSE,
            sparsity=None,
            seeds=0,
            kl={one.text: IntervalEstimate(one.kl, None, None, 1) for one in dense},
            perplexity={one.text: IntervalEstimate(one.perplexity, None, None, 1) for one in dense},
            geometric=IntervalEstimate(math.exp(fmean(logs)), None, None, 1) if logs else None,
            recalibrated=None,
        )
    ]
    groups: list[tuple[float | None, list[str]]] = [(sparsity, compared.ordered) for sparsity in compared.sparsities]
    if len(compared.sparsities) > 1:
        groups.append((None, compared.ranked))
    for sparsity, arms in groups:
        for arm in arms:
            runs = compared.runs(arm, sparsity)
            if runs:
                row = ArmRow(
                    arm=arm,
                    sparsity=sparsity,
                    seeds=compared.seeds(arm) if sparsity is None else len(runs),
                    kl={name: compared.on_text(arm, sparsity, name, KL) for name in compared.texts},
                    perplexity={name: compared.on_text(arm, sparsity, name, PERPLEXITY) for name in compared.texts},
                    geometric=compared.estimate(arm, sparsity, PERPLEXITY),
                    recalibrated=compared.estimate(arm, sparsity, RECALIBRATED),
                    costs={name: fmean(map(cost, runs)) for name, cost in COSTS.items()},
                )
                rows.append(row)
    return rows


# --- cells --------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share as a percentage, without a fraction where there is none."""
    return f"{100 * share:.4g}%"


def percent_change(log_ratio: float) -> str:
    """A difference of logarithms as a change in per cent, with its sign."""
    return f"{100 * math.expm1(log_ratio):+.1f}%"


def number(value: float | None, digits: int) -> str:
    """A figure in as many decimals, fewer where it is large."""
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return "infinite"
    return f"{value:,.{digits if abs(value) < 1000 else 0}f}"


def plus_minus(estimate: IntervalEstimate | None, digits: int) -> str:
    """A mean with half the width of its interval, where it has one."""
    if estimate is None:
        return ABSENT
    half = estimate.half_width
    return number(estimate.value, digits) + ("" if half is None else f" ± {number(half, digits)}")


def count(value: float) -> str:
    """A mean of counts: a decimal where it is small and not whole."""
    return f"{value:,.1f}" if value < 100 and not float(value).is_integer() else f"{value:,.0f}"


def with_interval(estimate: IntervalEstimate, words: Callable[[float], str]) -> str:
    """A figure with the ends of its interval, where it has one."""
    if estimate.low is None or estimate.high is None:
        return words(estimate.value)
    return f"{words(estimate.value)} ({words(estimate.low)} to {words(estimate.high)})"


# --- tables -------------------------------------------------------------------------------------------------------


def quality(rows: Sequence[ArmRow], texts: Sequence[str], *, brief: bool = False) -> Table:
    """What the arms came to; `brief` leaves the intervals of single texts out, for a screen."""
    header = ["arm", "sparsity", "seeds"]
    header += ["KL"] if brief else [f"KL, {name}" for name in texts]
    header += [name if brief else f"perplexity, {name}" for name in texts]
    header += ["geometric mean", "recalibrated"]
    cells = []
    for row in rows:
        line = [row.arm, row.where, str(row.seeds or ABSENT)]
        if brief:
            line += [number(row.mean_kl, 4)]
            line += [number(one.value if one else None, 2) for one in map(row.perplexity.get, texts)]
        else:
            line += [plus_minus(row.kl.get(name), 4) for name in texts]
            line += [plus_minus(row.perplexity.get(name), 2) for name in texts]
        cells.append([*line, plus_minus(row.geometric, 2), plus_minus(row.recalibrated, 2)])
    return Table(header, cells)


def cost(rows: Sequence[ArmRow], shown: Sequence[str] = tuple(COSTS)) -> Table:
    """What a run of each arm cost on average."""
    cells = [
        [row.arm, row.where, *(count(row.costs[name]) for name in shown)]
        for row in rows
        if row.costs and row.sparsity is not None
    ]
    return Table(["arm", "sparsity", *shown], cells)


def paired_differences(compared: ComparedArms, headline: str) -> Table:
    """The headline arm less every other one over pairs of runs, of every measure."""
    header = [f"{headline} less", "pairs"]
    for measure in MEASURES:
        header += [measure.name if measure.log else f"{measure.name}, nats", "p"]
    rows = []
    for baseline in compared.ordered:
        pairs = sum(len(paired_runs(compared, headline, baseline, sparsity)) for sparsity in compared.sparsities)
        if pairs and baseline != headline:
            cells = [cell for one in MEASURES for cell in _tested(compared, headline, baseline, one)]
            rows.append([baseline, str(pairs), *cells])
    return Table(header, rows)


def _tested(compared: ComparedArms, arm: str, baseline: str, measure: Measure) -> tuple[str, str]:
    """The difference with its interval, and the p-value with the least possible one where that says more.

    Where a pair was not measured it is said how many; where none was, there is nothing to say.
    """
    found = differences(compared, arm, baseline, measure)
    test = tested(arm, baseline, found)
    if test is None:
        measured = any(value is not None for stratum in found.values() for value in stratum)
        return unmeasured(found) if measured or measure is PERPLEXITY else ABSENT, ABSENT
    difference = with_interval(test, percent_change if measure.log else "{:+.4f}".format)
    if test.low is not None and not test.exact:
        difference += " (t)"
    if test.p is None or test.least_p is None:
        return difference, ABSENT
    return difference, f"{test.p:.2g}" + (f" (least {test.least_p:.2g})" if test.verdict == "too few pairs" else "")


def operator_yields(compared: ComparedArms) -> Table:
    """What became of the candidates by arm, proposer and operator; the share that improved with its interval."""

    def place(known: Sequence[str], name: str) -> tuple[int, str]:
        return (known.index(name), "") if name in known else (len(known), name)

    rows = []
    for arm in compared.ordered:
        totals: dict[tuple[str, str], Counter[str]] = {}
        for one in (one for run in compared.runs(arm) for one in run.yields):
            counts = {name: getattr(one, name) for name in ("made", "compared", "improved", "survived")}
            totals.setdefault((one.proposed_by, one.operator), Counter()).update(counts)
        for proposer, operator in sorted(
            totals, key=lambda kind: (place(OFFSPRING_PROPOSERS, kind[0]), place(OPERATORS, kind[1]))
        ):
            total = totals[proposer, operator]
            share = share_interval(total["improved"], total["compared"])
            cell = with_interval(share, "{:.0%}".format) if share else ABSENT
            rows.append([arm, proposer, operator, *map(count, total.values()), cell])
    header = ["arm", "proposed by", "operator", "made", "compared", "improved", "survived", "share improved"]
    return Table(header, rows)


def generalisation(compared: ComparedArms) -> Table:
    """KL on the tokens that were searched on, and on others of the same text."""
    rows = []
    for sparsity in compared.sparsities:
        for arm in compared.ordered:
            runs = compared.runs(arm, sparsity)
            fitness = [run.fitness for run in runs if run.fitness is not None]
            holdout = [run.holdout for run in runs if run.holdout is not None]
            if fitness:
                cells = [plus_minus(mean_interval(values), 4) if values else ABSENT for values in (fitness, holdout)]
                rows.append([arm, percent(sparsity), *cells])
    return Table(["arm", "sparsity", "searched on", "holdout"], rows)


# --- files --------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """One table in Markdown."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(_escaped(value) for value in values) + " |\n"

    rule = "| --- |" + " ---: |" * (len(table.header) - 1) + "\n"
    return line(table.header) + rule + "".join(map(line, table.rows))


def as_csv(rows: Sequence[ArmRow], texts: Sequence[str]) -> str:
    """`table.csv`: every mean and half-width unrounded, a line a row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    pairs = [f"{measure} {name}" for measure in ("kl", "perplexity") for name in texts]
    pairs += ["perplexity geometric mean", "recalibrated perplexity geometric mean"]
    header = ["arm", "sparsity", "seeds"]
    header += [title for pair in pairs for title in (pair, f"{pair} half-width")]
    writer.writerow([*header, *COSTS])
    for row in rows:
        estimates = [*map(row.kl.get, texts), *map(row.perplexity.get, texts), row.geometric, row.recalibrated]
        line: list[object] = [row.arm, "" if row.arm == DENSE else "all" if row.sparsity is None else row.sparsity]
        line.append(row.seeds or "")
        for one in estimates:
            half = one.half_width if one else None
            line += [one.value if one else "", "" if half is None else half]
        writer.writerow([*line, *(row.costs.get(name, "") for name in COSTS)])
    return file.getvalue()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
