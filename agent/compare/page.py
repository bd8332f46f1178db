"""What a comparison leaves behind: `results.json`, `table.md`, `table.csv`, `compare.html`, and the last screen.

The page is one file without scripts or outside files. All of it is made from the results alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import jinja2

from self_pruner.agent.compare.figures import (
    ComparedArms,
    Curve,
    brain_worth,
    kind_of,
    mean_curve,
    staircases,
)
from self_pruner.agent.compare.folder import RESULTS
from self_pruner.agent.compare.results import Results, RunResult
from self_pruner.agent.compare.sentences import sentences, worth_sentence
from self_pruner.agent.compare.tables import (
    BRIEF,
    as_csv,
    cost,
    generalisation,
    markdown,
    operator_yields,
    paired_differences,
    percent,
    quality,
    table_rows,
)
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.view import View

TEMPLATES = Path(__file__).parent
LOOK = TEMPLATES.parent / "report" / "page"  # that of a run's page
WIDTH, HEIGHT = 760.0, 262.0  # of a chart, in its own units
TOP, SIDE, BOTTOM = 24.0, 52.0, 34.0  # its margins
TICKS = 5
NEAR = 0.8  # how far from the curves a level is still on the chart, as a share of their span
MARGIN = 0.04  # of the span


def write_all(folder: Path, results: Results) -> None:
    """Write every file, each so that a reader finds the old one or the new; of unfinished comparisons what there is.

    Raises:
        WriteError: a file could not be written.
    """
    compared = ComparedArms(results)
    atomic_write(folder / RESULTS, results.model_dump_json(indent=1) + "\n")
    atomic_write(folder / "table.md", markdown_page(results))
    atomic_write(folder / "table.csv", as_csv(table_rows(compared), compared.texts))
    atomic_write(folder / "compare.html", render(results))


def show(results: Results, view: View) -> None:
    """The last screen: the tables and what they come to."""
    compared = ComparedArms(results)
    rows = table_rows(compared)
    view.line("")
    if compared.arms:
        view.table("Perplexity by reporting text, lower is better", *quality(rows, compared.texts, brief=True))
        view.table("Mean cost of a run", *cost(rows, BRIEF))
    view.line(f"Measured on {results.measured_on}.", "dim")
    for sentence in sentences(results):
        view.line(sentence)
    for one in results.missing:
        view.warn(f"missing: {one}")


def markdown_page(results: Results) -> str:
    """What it comes to, both tables, how it was measured."""
    compared = ComparedArms(results)
    rows = table_rows(compared)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [
        "\n".join(f"- {sentence}" for sentence in sentences(results)) + "\n",
        markdown(quality(rows, compared.texts)),
        "Mean cost of a run:\n",
        markdown(cost(rows)),
        f"{results.model}, measured on {results.measured_on}. Means over seeds ± half the 95% interval; closed forms "
        "are the same for every seed and run once. KL in nats a token. The geometric mean is over texts (and, in rows "
        "of all sparsities, over these too); recalibrated is the same after the profile was refitted on its own "
        "activations.\n",
        f"```\n{results.command}\n```\n",
        f"{versions}; {results.machine}.\n",
    ]
    return "\n".join(parts)


def render(results: Results) -> str:
    """The page as HTML."""
    compared = ComparedArms(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, LOOK]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    rows = table_rows(compared)
    headline = compared.headline
    worths = [(arm, brain_worth(compared.runs(arm))) for arm in compared.ordered if kind_of(arm) == "brain"]
    return environment.get_template("page.html.j2").render(
        results=results,
        compared=compared,
        headline=headline,
        sentences=sentences(results),
        quality=quality(rows, compared.texts),
        curves=curve_charts(compared),
        differences=paired_differences(compared, headline) if headline else None,
        operators=operator_yields(compared),
        worths=[(arm, worth_sentence(found)) for arm, found in worths if found is not None],
        generalisation=generalisation(compared),
        costs=cost(rows),
        profiles=[
            chosen(runs)
            for sparsity in compared.sparsities
            for arm in compared.ordered
            if (runs := compared.runs(arm, sparsity))
        ],
    )


def chosen(runs: Sequence[RunResult]) -> RunResult:
    """The run of these that a user would keep: the best on held-out tokens, which are not those that are reported.

    It is not chosen by the reported figures, which would flatter it.
    """
    return min(
        runs,
        key=lambda run: (
            math.inf if run.holdout is None else run.holdout,
            math.inf if run.fitness is None else run.fitness,
            run.seed,
        ),
    )


# --- the best so far against cost ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values between two ends."""

    low: float
    high: float
    start: float
    end: float
    name: Callable[[float], str] = str  # how a value is written

    def at(self, value: float) -> float:
        """The coordinate of `value`, held within the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten on the axis."""
        least = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= least * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """One arm's curves: a thin line a run, a thick mean. An arm that does not search is a level."""

    arm: str
    runs: list[Curve]
    level: float | None = None

    @property
    def mean(self) -> Curve:
        return mean_curve(self.runs)


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Best fitness so far against tokens."""

    title: str
    series: list[Series]
    x: Axis
    y: Axis
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def description(self) -> str:
        """The same in words."""
        curves = [one for one in self.series if one.level is None]
        said = [f"{one.arm} ends at {one.mean[-1][1]:.4f} after {one.mean[-1][0]:,.0f} tokens" for one in curves]
        return "; ".join(said + [f"{one.arm} is at {one.level:.4f}" for one in self.series if one.level is not None])


def curve_charts(compared: ComparedArms) -> list[CurveChart]:
    """Best fitness so far against tokens, at every sparsity at which something was searched."""
    charts = []
    for sparsity in compared.sparsities:
        series = []
        for arm in compared.ordered:
            runs = staircases(compared, arm, sparsity)
            fitness = [run.fitness for run in compared.runs(arm, sparsity) if run.fitness is not None]
            if runs:
                series.append(Series(arm, runs))
            elif fitness:
                series.append(Series(arm, [], fmean(fitness)))
        if any(one.runs for one in series):
            charts.append(curve_chart(f"Best fitness so far at {percent(sparsity)} sparsity", series))
    return charts


def curve_chart(title: str, series: list[Series]) -> CurveChart:
    """Staircases, of which there is at least one, and the levels that do not flatten them on common axes."""
    points = [point for one in series for curve in one.runs for point in curve]
    best = [fitness for _, fitness in points]
    far = NEAR * (max(best) - min(best))
    levels = [one.level for one in series if one.level is not None]
    near = [level for level in levels if min(best) - far <= level <= max(best) + far]
    x = axis_around([spent for spent, _ in points], SIDE, WIDTH - SIDE, _tokens)
    y = axis_around(best + near, HEIGHT - BOTTOM, TOP, lambda value: f"{value:.3g}")
    return CurveChart(title, series, x, y)


def axis_around(values: Sequence[float], start: float, end: float, name: Callable[[float], str]) -> Axis:
    """An axis from `start` to `end` that holds all `values`, of which there is at least one."""
    low, high = min(values), max(values)
    span = (high - low) or abs(low) * 0.1 or 1.0
    return Axis(low - MARGIN * span, high + MARGIN * span, start, end, name)


def _tokens(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
