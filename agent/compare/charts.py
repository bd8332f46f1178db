"""Geometry of the page's charts: numbers in, coordinates out. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from self_pruner.agent.compare.curves import Curve

WIDTH = 760.0  # of every chart, in its own units
LABEL = 150.0  # left of dots: names
FIGURE = 130.0  # right of dots: their figures
NAMES = 130.0  # right of curves: names
TITLE = 24.0  # above every chart
LEFT, BOTTOM = 52.0, 34.0  # margins
CURVE_HEIGHT = 262.0
ROW = 22.0
APART = 13.0  # least distance of two labels
TICKS = 5
LOG_FROM = 3.0  # ratio of extremes from which perplexity is drawn on a logarithmic axis
REACH = 0.8  # how far beyond its points an axis follows their intervals, as a share of their span


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values between two ends, on a linear or logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
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


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis with its name."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a chart of dots: a value with its interval, and single values beside it."""

    label: str
    value: float
    low: float | None
    high: float | None
    text: str  # the figure in words
    points: Sequence[float] = ()
    style: int = 0


@dataclass(frozen=True, slots=True)
class PlacedDot:
    """A row with coordinates; `ends` says which ends of the whisker lie on the axis."""

    row: Dot
    x: float
    y: float
    whisker: tuple[float, float] | None
    ends: tuple[bool, bool]
    points: list[float]


@dataclass(frozen=True, slots=True)
class DotChart:
    """Rows of dots on one axis."""

    title: str
    rows: list[PlacedDot]
    ticks: list[Tick]
    height: float
    reference: float | None  # coordinate of the value of no difference
    width: float = WIDTH
    label: float = LABEL

    @property
    def description(self) -> str:
        """The same in words."""
        return "; ".join(f"{one.row.label}: {one.row.text}" for one in self.rows)


def dot_chart(
    title: str,
    rows: Sequence[Dot],
    name: Callable[[float], str],
    *,
    reference: float | None = None,
    log: bool = False,
    ends: tuple[float, float] | None = None,
) -> DotChart | None:
    """Rows of dots with whiskers; None without rows.

    Args:
        title: of the chart.
        rows: from top to bottom.
        name: how a value on the axis is written.
        reference: a value to draw a line at.
        log: whether the axis may be logarithmic; it is where the values differ much.
        ends: of the axis, where they are not to follow from the rows.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return None
    values = [value for row in rows for value in (row.value, *row.points) if math.isfinite(value)]
    if reference is not None:
        values.append(reference)
    low, high = min(values), max(values)
    log = log and low > 0 and high / low >= LOG_FROM
    scale: Callable[[float], float] = _log if log else float
    back: Callable[[float], float] = math.exp if log else float
    span = (scale(high) - scale(low)) or abs(scale(low)) * 0.1 or 1.0
    tips = [scale(one) for row in rows for one in (row.low, row.high) if one is not None and (one > 0 or not log)]
    first = max(min([scale(low), *tips]), scale(low) - REACH * span) - 0.04 * span
    last = min(max([scale(high), *tips]), scale(high) + REACH * span) + 0.04 * span
    low, high = ends or (back(first), back(last))
    axis = Axis(low, high, LABEL, WIDTH - FIGURE, log)
    placed = [_placed(row, TITLE + ROW * (index + 0.5), axis) for index, row in enumerate(rows)]
    ticks = [Tick(axis.at(value), name(value)) for value in axis.ticks()]
    line = None if reference is None else axis.at(reference)
    return DotChart(title, placed, ticks, TITLE + ROW * len(rows) + BOTTOM, line)


def _placed(row: Dot, y: float, axis: Axis) -> PlacedDot:
    whisker, ends = None, (True, True)
    if row.low is not None and row.high is not None:
        whisker = axis.at(row.low), axis.at(row.high)
        ends = row.low >= axis.low, row.high <= axis.high
    return PlacedDot(row, axis.at(row.value), y, whisker, ends, [axis.at(point) for point in row.points])


@dataclass(frozen=True, slots=True)
class Series:
    """One arm's curves: a thin line a run, a thick mean."""

    name: str
    style: int
    runs: list[Curve]
    mean: Curve


@dataclass(frozen=True, slots=True)
class Level:
    """An arm without a curve: one value whatever it costs."""

    name: str
    style: int
    value: float


@dataclass(frozen=True, slots=True)
class Line:
    """What is drawn of one arm; `label` is where its name goes, nudged away from the others."""

    name: str
    style: int
    x: float  # of its end
    y: float
    thin: list[str]
    thick: str  # empty for a level
    label: float = 0.0


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Best fitness so far against tokens."""

    title: str
    description: str
    lines: list[Line]
    x: list[Tick]
    y: list[Tick]
    height: float = CURVE_HEIGHT
    width: float = WIDTH
    left: float = LEFT
    right: float = WIDTH - NAMES


def curve_chart(
    title: str,
    series: Sequence[Series],
    levels: Sequence[Level],
    names: tuple[Callable[[float], str], Callable[[float], str]],
) -> CurveChart | None:
    """Staircases and levels on common axes; None where nothing was searched.

    Args:
        title: of the chart.
        series: arms with curves.
        levels: arms without.
        names: how a cost and a fitness are written on the axes.
    """
    series = [one for one in series if one.mean]
    if not series:
        return None
    points = [point for one in series for curve in one.runs for point in curve]
    costs = [cost for cost, _ in points]
    (x0, x1), (y0, y1) = _span(costs), _span([fitness for _, fitness in points])
    beyond = REACH * (y1 - y0)  # a level further away is held at the edge, with its value beside its name
    y0 = min([y0, *(level.value for level in levels if level.value >= y0 - beyond)])
    y1 = max([y1, *(level.value for level in levels if level.value <= y1 + beyond)])
    margin = 0.04 * (y1 - y0)
    across = Axis(x0, x1, LEFT, WIDTH - NAMES)
    down = Axis(y0 - margin, y1 + margin, CURVE_HEIGHT - BOTTOM, TITLE)
    lines = []
    for level in levels:
        outside = "" if y0 <= level.value <= y1 else f" ({names[1](level.value)})"
        lines.append(Line(level.name + outside, level.style, WIDTH - NAMES, down.at(level.value), [], ""))
    for one in series:
        cost, fitness = one.mean[-1]
        thin = [_staircase(curve, across, down) for curve in one.runs] if len(one.runs) > 1 else []
        thick = _staircase(one.mean, across, down)
        lines.append(Line(one.name, one.style, across.at(cost), down.at(fitness), thin, thick))
    said = [f"{one.name} ends at {one.mean[-1][1]:.4f} after {one.mean[-1][0]:,.0f} tokens" for one in series]
    said += [f"{one.name} is at {one.value:.4f}" for one in levels]
    return CurveChart(
        title,
        "; ".join(said),
        _spread(lines),
        [Tick(across.at(value), names[0](value)) for value in across.ticks()],
        [Tick(down.at(value), names[1](value)) for value in down.ticks()],
    )


def _staircase(curve: Curve, across: Axis, down: Axis) -> str:
    """The points of an SVG polyline: the best stays until a better one is known."""
    placed: list[str] = []
    y = 0.0
    for index, (cost, fitness) in enumerate(curve):
        x = across.at(cost)
        if index:
            placed.append(f"{x},{y}")
        y = down.at(fitness)
        placed.append(f"{x},{y}")
    return " ".join(placed)


def _spread(lines: Sequence[Line]) -> list[Line]:
    """The lines with their labels at least APART from each other, as near to their ends as that allows."""
    ordered = sorted(lines, key=lambda line: line.y)
    labels: list[float] = []
    for line in ordered:
        labels.append(max(line.y, labels[-1] + APART) if labels else max(line.y, TITLE))
    limit = CURVE_HEIGHT - BOTTOM
    for index in reversed(range(len(labels))):  # what was pushed off the end is pushed back
        labels[index] = min(labels[index], limit)
        limit = labels[index] - APART
    placed = {line.name: label for line, label in zip(ordered, labels, strict=True)}
    return [replace(line, label=placed[line.name]) for line in lines]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.05 * abs(low or 1.0), high + 0.05 * abs(high or 1.0))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= least * (1 - 1e-9))


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))
