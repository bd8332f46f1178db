"""The table of a comparison, on screen, in Markdown, in CSV: what every arm came to at every sparsity, at what cost."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from self_pruner.agent.compare.figures import KL, PERPLEXITY, RECALIBRATED, ComparedArms
from self_pruner.agent.compare.results import RunResult
from self_pruner.agent.compare.statistics import IntervalEstimate

DENSE = "dense"
ABSENT = "-"

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
    rows = [_dense(compared)]
    groups: list[float | None] = [*compared.sparsities]
    if len(compared.sparsities) > 1:
        groups.append(None)
    for sparsity in groups:
        for arm in compared.ordered:
            runs = compared.runs(arm, sparsity)
            if runs and (sparsity is not None or arm in compared.ranked):
                rows.append(_row(compared, arm, sparsity, runs))
    return rows


def _row(compared: ComparedArms, arm: str, sparsity: float | None, runs: Sequence[RunResult]) -> ArmRow:
    return ArmRow(
        arm=arm,
        sparsity=sparsity,
        seeds=len(runs) if sparsity is not None else compared.seeds(arm),
        kl={name: compared.on_text(arm, sparsity, name, KL) for name in compared.texts},
        perplexity={name: compared.on_text(arm, sparsity, name, PERPLEXITY) for name in compared.texts},
        geometric=compared.estimate(arm, sparsity, PERPLEXITY),
        recalibrated=compared.estimate(arm, sparsity, RECALIBRATED),
        costs={name: fmean(map(cost, runs)) for name, cost in COSTS.items()},
    )


def _dense(compared: ComparedArms) -> ArmRow:
    dense = compared.results.dense
    logs = [PERPLEXITY.value(one) for one in dense]
    return ArmRow(
        arm=DENSE,
        sparsity=None,
        seeds=0,
        kl={one.text: IntervalEstimate(one.kl, None, None, 1) for one in dense},
        perplexity={one.text: IntervalEstimate(one.perplexity, None, None, 1) for one in dense},
        geometric=IntervalEstimate(math.exp(fmean(logs)), None, None, 1) if logs else None,
        recalibrated=None,
    )


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


def count(value: float | None) -> str:
    """A mean of counts: a decimal where it is small and not whole."""
    if value is None:
        return ABSENT
    return f"{value:,.1f}" if value < 100 and not float(value).is_integer() else f"{value:,.0f}"


# --- tables -------------------------------------------------------------------------------------------------------


def quality(rows: Sequence[ArmRow], texts: Sequence[str], *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of what the arms came to; `brief` leaves the intervals of single texts out, for a screen."""
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
    return header, cells


BRIEF = ("tokens", "brain tokens", "search s", "evaluations", "invalid", "fallbacks", "repaired")


def cost(rows: Sequence[ArmRow], *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of what a run of each arm cost on average; `brief` is for a screen."""
    shown = BRIEF if brief else tuple(COSTS)
    cells = [
        [row.arm, row.where, *(count(row.costs[name]) for name in shown)]
        for row in rows
        if row.costs and row.sparsity is not None
    ]
    return ["arm", "sparsity", *shown], cells


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """One table in Markdown, the first column being names."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(_escaped(value) for value in values) + " |\n"

    return line(header) + "| --- |" + " ---: |" * (len(header) - 1) + "\n" + "".join(map(line, cells))


def markdown_page(rows: Sequence[ArmRow], texts: Sequence[str], sentences: Sequence[str], notes: Sequence[str]) -> str:
    """`table.md`: what it comes to, both tables, how it was measured."""
    parts = ["\n".join(f"- {sentence}" for sentence in sentences) + "\n"]
    parts += [markdown(*quality(rows, texts)), "Mean cost of a run:\n", markdown(*cost(rows))]
    parts += [f"{note}\n" for note in notes]
    return "\n".join(parts)


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
