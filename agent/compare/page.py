"""The page of a comparison: one file without scripts or outside files, made from the results alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from self_pruner.agent.compare.differences import gaps, over_seeds, over_text, reached
from self_pruner.agent.compare.figures import MEASURES, PERPLEXITY, Figures, Measure, kind_of
from self_pruner.agent.compare.makers import worth, yields
from self_pruner.agent.compare.panels import curve_charts, forest, maker_charts, perplexity_charts, profiles
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.sentence import sentences, worth_sentence
from self_pruner.agent.compare.statistics import Estimate, PairedTest
from self_pruner.agent.compare.table import ABSENT, cost, count, percent, percent_change, plus_minus, table_rows

TEMPLATES = Path(__file__).parent


class Cell(NamedTuple):
    """What stands in a table, and what stands small below it."""

    text: str
    small: str = ""


Table = tuple[Sequence[str], Sequence[Sequence[str | Cell]]]  # header and rows


def render(results: Results) -> str:
    """The page as HTML."""
    comparison = Figures(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, TEMPLATES.parent / "report"]),  # the look is the run report's
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plus_minus": plus_minus}
    rows = table_rows(comparison)
    headline = comparison.headline
    return environment.get_template("page.html.j2").render(
        results=results,
        comparison=comparison,
        headline=headline,
        sentences=sentences(results),
        rows=rows,
        curves=curve_charts(comparison),
        perplexities=perplexity_charts(comparison),
        seeds=seeds_table(comparison, headline) if headline else ((), []),
        forest=forest(comparison, headline) if headline else None,
        matrix=matrix(comparison),
        text=text_table(comparison, headline) if headline else ((), []),
        makers=maker_charts(comparison),
        made=maker_table(comparison),
        worths=worths(comparison),
        gaps=gap_table(comparison),
        costs=cost(rows),
        reach=reach_table(comparison, headline) if headline else ((), []),
        profiles=profiles(comparison),
    )


# --- tables -------------------------------------------------------------------------------------------------------


def seeds_table(comparison: Figures, headline: str) -> Table:
    """Paired differences over seeds, of every measure."""
    header = [f"{headline} less", "pairs"]
    header += [title for measure in MEASURES for title in (_unit(measure), "p")]
    rows: list[list[str | Cell]] = []
    for rival in comparison.others(headline):
        tests = [over_seeds(comparison, headline, rival, measure) for measure in MEASURES]
        if tests[0] is not None:
            cells = [cell for test, one in zip(tests, MEASURES, strict=True) for cell in _tested(test, one)]
            rows.append([rival, str(tests[0].n), *cells])
    return header, rows


def matrix(comparison: Figures) -> Table:
    """The change of perplexity from every column to every row; those that the test tells apart have a star."""
    arms = comparison.ordered
    rows = []
    for arm in arms:
        line = [arm]
        for rival in arms:
            test = None if arm == rival else over_seeds(comparison, arm, rival, PERPLEXITY)
            told = test is not None and test.verdict in ("below", "above")
            line.append(ABSENT if test is None else percent_change(test.mean) + ("*" if told else ""))
        rows.append(line)
    return ["", *arms], rows if len(arms) > 1 else []


def text_table(comparison: Figures, headline: str) -> Table:
    """Differences of the chosen runs' profiles over the sequences: the mean of all texts, then each."""
    several = len(comparison.texts) > 1
    header = [f"{headline} less", "sparsity", "seeds", "sequences", "KL, nats", "perplexity"]
    rows: list[list[str | Cell]] = []
    for rival in comparison.others(headline):
        found = over_text(comparison, headline, rival)
        for whole in (one for one in found if not one.text or not several):
            singles = {one.text: _ratio(one.ratio) for one in found if one.sparsity == whole.sparsity}
            rows.append(
                [
                    rival,
                    percent(whole.sparsity),
                    f"{whole.seeds[0]}, {whole.seeds[1]}",
                    str(whole.kl.n),
                    Cell(_nats(whole.kl.value), _interval(whole.kl, _nats)),
                    _ratio(whole.ratio),
                    *(singles[name] for name in comparison.texts if several),
                ]
            )
    return [*header, *(comparison.texts if several else [])], rows


def worths(comparison: Figures) -> list[tuple[str, str]]:
    """For every arm that asks the brain, what it is worth, in words."""
    found = [(arm, worth(comparison.runs(arm))) for arm in comparison.ordered if kind_of(arm) == "brain"]
    return [(arm, worth_sentence(one)) for arm, one in found if one is not None]


def maker_table(comparison: Figures) -> Table:
    """Counts of candidates by arm, maker and operator."""
    rows = [
        [
            one.arm,
            one.maker,
            one.operator,
            *(count(value) for value in (one.made, one.compared, one.hits, one.survived)),
        ]
        for one in yields(comparison)
    ]
    return ["arm", "made by", "operator", "made", "compared", "improved", "survived"], rows


def gap_table(comparison: Figures) -> Table:
    """KL on other text over KL on the tokens that the search saw."""
    rows = [
        [
            one.arm,
            percent(one.sparsity),
            plus_minus(one.fitness, 4),
            plus_minus(one.unseen, 3),
            *(plus_minus(one.texts.get(name), 3) for name in comparison.texts),
        ]
        for one in gaps(comparison)
    ]
    return ["arm", "sparsity", "fitness", "unseen / fitness", *(f"{name} / fitness" for name in comparison.texts)], rows


def reach_table(comparison: Figures, headline: str) -> Table:
    """Tokens at which the arm that is spoken of had the final fitness of every other that searches."""
    header = [
        "final fitness of",
        "sparsity",
        "fitness",
        f"{headline} had it after",
        "it took itself",
        "share",
        "it spent",
    ]
    rows = []
    for rival in comparison.others(headline):
        for sparsity, one in reached(comparison, headline, rival).items():
            rows.append(
                [
                    rival,
                    percent(sparsity),
                    f"{one.target:.4f}",
                    "never" if one.needed is None else count(one.needed),
                    count(one.theirs),
                    ABSENT if one.share is None else f"{one.share:.0%}",
                    count(one.spent),
                ]
            )
    return header, rows


def _unit(measure: Measure) -> str:
    return measure.name if measure.log else f"{measure.name}, nats"


def _tested(test: PairedTest | None, measure: Measure) -> tuple[Cell, Cell]:
    """The difference with its interval, and the p-value with the least possible one where that says more."""
    if test is None:
        return Cell(ABSENT), Cell(ABSENT)
    words = percent_change if measure.log else _nats
    interval = _interval(test, words) + (" (t)" if test.low is not None and not test.exact else "")
    difference = Cell(words(test.mean), interval)
    if test.p is None or test.least_p is None:
        return difference, Cell(ABSENT)
    return difference, Cell(f"{test.p:.2g}", f"least {test.least_p:.2g}" if test.verdict == "too few pairs" else "")


def _ratio(estimate: Estimate) -> Cell:
    return Cell(
        percent_change(math.log(estimate.value)), _interval(estimate, lambda end: percent_change(math.log(end)))
    )


def _interval(estimate: Estimate | PairedTest, name: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{name(estimate.low)} to {name(estimate.high)}"


def _nats(value: float) -> str:
    return f"{value:+.4f}"
