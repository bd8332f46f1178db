"""The charts of a comparison's page: which figures each one shows, on which axes. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from self_pruner.agent.compare.differences import Curve, mean_curve, over_seeds, staircases
from self_pruner.agent.compare.figures import PERPLEXITY, ComparedArms
from self_pruner.agent.compare.statistics import IntervalEstimate
from self_pruner.agent.compare.table import percent, percent_change, plus_minus

WIDTH = 760.0  # of every chart, in its own units
LABEL, FIGURE = 150.0, 130.0  # left and right of dots: names and figures
TITLE, LEFT, BOTTOM = 24.0, 52.0, 34.0  # margins
CURVE_HEIGHT = 262.0
ROW = 22.0
TICKS = 5
LOG_FROM = 3.0  # ratio of extremes from which perplexity is drawn on a logarithmic axis
REACH = 0.8  # how far beyond its points an axis follows their intervals, as a share of their span
MARGIN = 0.04  # of the span


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values between two ends, on a linear or logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    name: Callable[[float], str] = str  # how a value is written
    log: bool = False

    def at(self, value: float) -> float:
        """The coordinate of `value`, held within the axis."""
        low, high, place = (_log(one) if self.log else one for one in (self.low, self.high, value))
        share = (place - low) / (high - low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            found = [value for value in steps if self.low <= value <= self.high]
            if len(found) >= 3:
                return found
        step = _round_step((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def axis_around(
    values: Sequence[float],
    beyond: Sequence[float],
    ends: tuple[float, float],
    name: Callable[[float], str],
    *,
    log: bool = False,
) -> Axis:
    """An axis that holds all `values`, and what is `beyond` them as far as REACH.

    Args:
        values: at least one, finite.
        beyond: ends of intervals, or values further away.
        ends: coordinates.
        name: how a value is written.
        log: whether it is logarithmic; all of `values` are above zero then.
    """
    scale: Callable[[float], float] = _log if log else float
    low, high = scale(min(values)), scale(max(values))
    span = (high - low) or abs(low) * 0.1 or 1.0
    tips = [scale(one) for one in beyond if one > 0 or not log]
    first = max(min([low, *tips]), low - REACH * span) - MARGIN * span
    last = min(max([high, *tips]), high + REACH * span) + MARGIN * span
    return Axis(math.exp(first) if log else first, math.exp(last) if log else last, *ends, name, log)


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a chart of dots: a value with its interval, and single values beside it."""

    arm: str
    estimate: IntervalEstimate
    text: str  # the figure in words
    points: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class DotChart:
    """Rows of dots, from top to bottom, on one axis."""

    title: str
    rows: list[Dot]
    axis: Axis
    reference: float | None = None  # a value to draw a line at
    width: float = WIDTH

    @property
    def height(self) -> float:
        """Of the whole chart."""
        return TITLE + ROW * len(self.rows) + BOTTOM

    def y(self, index: int) -> float:
        """Where a row is."""
        return TITLE + ROW * (index + 0.5)

    @property
    def description(self) -> str:
        """The same in words."""
        return "; ".join(f"{row.arm}: {row.text}" for row in self.rows)


def dot_chart(
    title: str, rows: Sequence[Dot], name: Callable[[float], str], *, reference: float | None = None, log: bool = False
) -> DotChart | None:
    """Rows of dots with whiskers; None without rows. With `log` the axis is logarithmic where values differ much."""
    rows = [row for row in rows if math.isfinite(row.estimate.value)]
    if not rows:
        return None
    values = [one for row in rows for one in (row.estimate.value, *row.points) if math.isfinite(one)]
    values += [] if reference is None else [reference]
    tips = [one for row in rows for one in (row.estimate.low, row.estimate.high) if one is not None]
    log = log and min(values) > 0 and max(values) / min(values) >= LOG_FROM
    return DotChart(title, rows, axis_around(values, tips, (LABEL, WIDTH - FIGURE), name, log=log), reference)


@dataclass(frozen=True, slots=True)
class Series:
    """One arm's curves: a thin line a run, a thick mean. An arm that does not search is a level."""

    arm: str
    runs: list[Curve]
    mean: Curve
    level: float | None = None


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Best fitness so far against tokens."""

    title: str
    series: list[Series]
    x: Axis
    y: Axis
    height: float = CURVE_HEIGHT
    width: float = WIDTH

    @property
    def description(self) -> str:
        """The same in words."""
        curves = [one for one in self.series if one.level is None]
        said = [f"{one.arm} ends at {one.mean[-1][1]:.4f} after {one.mean[-1][0]:,.0f} tokens" for one in curves]
        return "; ".join(said + [f"{one.arm} is at {one.level:.4f}" for one in self.series if one.level is not None])


def curve_chart(title: str, series: Sequence[Series]) -> CurveChart | None:
    """Staircases and levels on common axes; None where nothing was searched."""
    points = [point for one in series for curve in one.runs for point in curve]
    if not points:
        return None
    x = axis_around([cost for cost, _ in points], (), (LEFT, WIDTH - LEFT), _tokens)
    best = [fitness for _, fitness in points]
    far = REACH * (max(best) - min(best))  # a level that is further away would flatten the curves
    levels = [one.level for one in series if one.level is not None]
    near = [level for level in levels if min(best) - far <= level <= max(best) + far]
    y = axis_around(best, near, (CURVE_HEIGHT - BOTTOM, TITLE), lambda value: f"{value:.3g}")
    return CurveChart(title, list(series), x, y)


# --- of a comparison ----------------------------------------------------------------------------------------------


def curve_charts(compared: ComparedArms) -> list[CurveChart]:
    """Best fitness so far against tokens, at every sparsity."""
    charts = []
    for sparsity in compared.sparsities:
        series = []
        for arm in compared.ordered:
            runs = staircases(compared, arm, sparsity)
            fitness = [run.fitness for run in compared.runs(arm, sparsity) if run.fitness is not None]
            if runs:
                series.append(Series(arm, runs, mean_curve(runs)))
            elif fitness:
                series.append(Series(arm, [], [], fmean(fitness)))
        charts.append(curve_chart(f"Best fitness so far at {percent(sparsity)} sparsity", series))
    return [chart for chart in charts if chart is not None]


def perplexity_charts(compared: ComparedArms) -> list[DotChart]:
    """Perplexity of every arm, geometric mean over texts, at every sparsity; a faint mark a seed."""
    charts = []
    for sparsity in compared.sparsities:
        rows = []
        for arm in compared.ordered:
            found = compared.estimate(arm, sparsity, PERPLEXITY)
            if found is not None:
                seeds = [math.exp(value) for value in compared.values(arm, sparsity, PERPLEXITY)]
                points = seeds if len(seeds) > 1 else []
                rows.append(Dot(arm, found, plus_minus(found, 2), points))
        title = f"Perplexity at {percent(sparsity)} sparsity"
        charts.append(dot_chart(title, rows, lambda value: f"{value:,.4g}", log=True))
    return [chart for chart in charts if chart is not None]


def forest(compared: ComparedArms, headline: str) -> DotChart | None:
    """The change of perplexity from every other arm to the headline arm, in per cent."""
    rows = []
    for baseline in compared.others(headline):
        test = over_seeds(compared, headline, baseline, PERPLEXITY)
        if test is not None:
            low, high = (None if end is None else 100 * math.expm1(end) for end in (test.low, test.high))
            change = IntervalEstimate(100 * math.expm1(test.mean), low, high, test.n)
            rows.append(Dot(baseline, change, percent_change(test.mean)))
    title = f"Perplexity of {headline} against"
    return dot_chart(title, rows, lambda value: f"{value:+.3g}%" if value else "0", reference=0.0)


def _tokens(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= least * (1 - 1e-9))


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))
