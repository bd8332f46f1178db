"""The charts of a comparison's page: which figures each one shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from self_pruner.agent.compare.charts import CurveChart, Dot, DotChart, Level, Series, curve_chart, dot_chart
from self_pruner.agent.compare.curves import mean_curve
from self_pruner.agent.compare.differences import over_seeds, staircases
from self_pruner.agent.compare.figures import PERPLEXITY, Figures, chosen
from self_pruner.agent.compare.makers import yields
from self_pruner.agent.compare.statistics import Estimate
from self_pruner.agent.compare.table import percent, percent_change, plus_minus

BARS = (210.0, 60.0)  # width and height of one profile


def style(comparison: Figures, arm: str) -> int:
    """Which colour and mark an arm has on the whole page."""
    return comparison.arms.index(arm)


def curve_charts(comparison: Figures) -> list[CurveChart]:
    """Best fitness so far against tokens, at every sparsity; arms without a curve are levels."""
    charts = []
    for sparsity in comparison.sparsities:
        series, levels = [], []
        for arm in comparison.ordered:
            runs = staircases(comparison, arm, sparsity)
            fitness = [run.fitness for run in comparison.runs(arm, sparsity) if run.fitness is not None]
            if runs:
                series.append(Series(arm, style(comparison, arm), runs, mean_curve(runs)))
            elif fitness:
                levels.append(Level(arm, style(comparison, arm), sum(fitness) / len(fitness)))
        title = f"Best fitness so far at {percent(sparsity)} sparsity"
        charts.append(curve_chart(title, series, levels, (_tokens, lambda value: f"{value:.3g}")))
    return [chart for chart in charts if chart is not None]


def perplexity_charts(comparison: Figures) -> list[DotChart]:
    """Perplexity of every arm, geometric mean over texts, at every sparsity; a faint mark a seed."""
    charts = []
    for sparsity in comparison.sparsities:
        rows = []
        for arm in comparison.ordered:
            found = comparison.estimate(arm, sparsity, PERPLEXITY)
            if found is not None:
                seeds = [math.exp(value) for value in comparison.values(arm, sparsity, PERPLEXITY)]
                points = seeds if len(seeds) > 1 else []
                rows.append(_dot(arm, found, plus_minus(found, 2), style(comparison, arm), points))
        title = f"Perplexity at {percent(sparsity)} sparsity"
        charts.append(dot_chart(title, rows, lambda value: f"{value:,.4g}", log=True))
    return [chart for chart in charts if chart is not None]


def forest(comparison: Figures, headline: str) -> DotChart | None:
    """The change of perplexity from every other arm to the one that is spoken of."""
    rows = []
    for rival in comparison.others(headline):
        test = over_seeds(comparison, headline, rival, PERPLEXITY)
        if test is not None:
            low, high = (None if end is None else 100 * math.expm1(end) for end in (test.low, test.high))
            rows.append(
                Dot(
                    rival,
                    100 * math.expm1(test.mean),
                    low,
                    high,
                    percent_change(test.mean),
                    (),
                    style(comparison, rival),
                )
            )
    return dot_chart(
        f"Perplexity of {headline} against", rows, lambda value: f"{value:+.3g}%" if value else "0", reference=0.0
    )


def maker_charts(comparison: Figures) -> list[DotChart]:
    """The share of improving candidates by maker and operator, for every arm that has any."""
    known = [(one, one.improved) for one in yields(comparison) if one.improved is not None]
    most = max((share.high or 0.0 for _, share in known), default=1.0)
    charts = []
    for arm in comparison.ordered:
        rows = []
        for one, share in known:
            if one.arm == arm:
                words = f"{share.value:.0%} ({one.hits} of {share.n})"
                rows.append(_dot(f"{one.maker}, {one.operator}", share, words, style(comparison, arm)))
        title = f"Improving candidates of {arm}"
        charts.append(dot_chart(title, rows, lambda value: f"{value:.0%}", ends=(0.0, most)))
    return [chart for chart in charts if chart is not None]


def profiles(comparison: Figures) -> list[dict[str, Any]]:
    """What the chosen run of every arm keeps of each layer, as bars: attention upwards, MLP downwards."""
    runs = comparison.results.runs
    dense = {
        "attention": comparison.results.units.get("attention") or max((max(run.attention) for run in runs), default=1),
        "mlp": comparison.results.units.get("mlp") or max((max(run.mlp) for run in runs), default=1),
    }
    width, height = BARS
    found = []
    for sparsity in comparison.sparsities:
        for arm in comparison.ordered:
            run = chosen(comparison.runs(arm, sparsity))
            if run is None:
                continue
            step = width / len(run.attention)
            bars = [
                {
                    "x": round(layer * step, 2),
                    "width": round(max(0.5, step - (1 if step > 3 else 0.2)), 2),
                    "up": round(height / 2 * attention / dense["attention"], 2),
                    "down": round(height / 2 * mlp / dense["mlp"], 2),
                }
                for layer, (attention, mlp) in enumerate(zip(run.attention, run.mlp, strict=True))
            ]
            found.append({"arm": arm, "sparsity": percent(sparsity), "run": run, "bars": bars})
    return found


def _dot(label: str, estimate: Estimate, text: str, style: int, points: Sequence[float] = ()) -> Dot:
    return Dot(label, estimate.value, estimate.low, estimate.high, text, points, style)


def _tokens(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
