"""What a comparison leaves behind: `results.json`, `table.md`, `table.csv`, `compare.html`, and the last screen.

The page is one file without scripts or outside files. All of it is made from the results alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from self_pruner.agent.compare.charts import curve_charts, forest, perplexity_charts
from self_pruner.agent.compare.differences import brain_worth, over_seeds, pooled_yields
from self_pruner.agent.compare.figures import MEASURES, ComparedArms, Measure, chosen, kind_of
from self_pruner.agent.compare.folder import RESULTS
from self_pruner.agent.compare.results import Results, RunResult
from self_pruner.agent.compare.sentences import sentences, worth_sentence
from self_pruner.agent.compare.statistics import IntervalEstimate, PairedTest, mean_interval, share_interval
from self_pruner.agent.compare.table import (
    ABSENT,
    as_csv,
    cost,
    count,
    markdown_page,
    percent,
    percent_change,
    plus_minus,
    quality,
    table_rows,
)
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.view import View

MARKDOWN, CSV, PAGE = "table.md", "table.csv", "compare.html"
TEMPLATES = Path(__file__).parent


def write_all(folder: Path, results: Results) -> None:
    """Write every file, each so that a reader finds the old one or the new; of unfinished comparisons what there is.

    Raises:
        WriteError: a file could not be written.
    """
    compared = ComparedArms(results)
    rows = table_rows(compared)
    atomic_write(folder / RESULTS, results.model_dump_json(indent=1) + "\n")
    atomic_write(folder / MARKDOWN, markdown_page(rows, compared.texts, sentences(results), notes(results)))
    atomic_write(folder / CSV, as_csv(rows, compared.texts))
    atomic_write(folder / PAGE, render(results))


def show(results: Results, view: View) -> None:
    """The last screen: the tables and what they come to."""
    compared = ComparedArms(results)
    rows = table_rows(compared)
    view.line("")
    if compared.arms:
        view.table("Perplexity by reporting text, lower is better", *quality(rows, compared.texts, brief=True))
        view.table("Mean cost of a run", *cost(rows, brief=True))
    view.line(f"Measured on {results.measured_on}.", "dim")
    for sentence in sentences(results):
        view.line(sentence)
    for one in results.missing:
        view.warn(f"missing: {one}")


def notes(results: Results) -> list[str]:
    """How the figures came about, for the foot of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        f"{results.model}, measured on {results.measured_on}. Means over seeds ± half the 95% interval; closed forms "
        "are the same for every seed and run once. KL in nats a token. The geometric mean is over texts (and, in rows "
        "of all sparsities, over these too); recalibrated is the same after the profile was refitted on its own "
        "activations.",
        f"```\n{results.command}\n```",
        f"{versions}; {results.machine}.",
    ]


# --- the page -----------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """What stands in a table, and what stands small below it."""

    text: str
    small: str = ""


Table = tuple[Sequence[str], Sequence[Sequence[str | Cell]]]  # header and rows


def render(results: Results) -> str:
    """The page as HTML."""
    compared = ComparedArms(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, TEMPLATES.parent / "report"]),  # the look is the run report's
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plus_minus": plus_minus, "percent": percent}
    rows = table_rows(compared)
    headline = compared.headline
    return environment.get_template("page.html.j2").render(
        results=results,
        compared=compared,
        headline=headline,
        sentences=sentences(results),
        rows=rows,
        curves=curve_charts(compared),
        perplexities=perplexity_charts(compared),
        seeds=seeds_table(compared, headline) if headline else ((), []),
        forest=forest(compared, headline) if headline else None,
        operators=operator_table(compared),
        worths=worths(compared),
        holdout=holdout_table(compared),
        costs=cost(rows),
        profiles=profiles(compared),
        units=dense_units(results),
    )


def seeds_table(compared: ComparedArms, headline: str) -> Table:
    """Paired differences over seeds, of every measure."""
    header = [f"{headline} less", "pairs"]
    for measure in MEASURES:
        header += [measure.name if measure.log else f"{measure.name}, nats", "p"]
    rows: list[list[str | Cell]] = []
    for baseline in compared.others(headline):
        tests = [over_seeds(compared, headline, baseline, measure) for measure in MEASURES]
        if tests[0] is not None:
            cells = [cell for test, one in zip(tests, MEASURES, strict=True) for cell in _tested(test, one)]
            rows.append([baseline, str(tests[0].n), *cells])
    return header, rows


def operator_table(compared: ComparedArms) -> Table:
    """What became of the candidates by arm, proposer and operator; the share that improved with its interval."""
    rows: list[list[str | Cell]] = []
    for arm in compared.ordered:
        for one in pooled_yields(compared, arm):
            share = share_interval(one.improved, one.compared)
            cell = Cell(f"{share.value:.0%}", _interval(share, lambda end: f"{end:.0%}")) if share else Cell(ABSENT)
            counts = [count(value) for value in (one.made, one.compared, one.improved, one.survived)]
            rows.append([arm, one.proposed_by, one.operator, *counts, cell])
    return ["arm", "proposed by", "operator", "made", "compared", "improved", "survived", "share improved"], rows


def worths(compared: ComparedArms) -> list[tuple[str, str]]:
    """For every arm that asks the brain, what it is worth, in words."""
    found = [(arm, brain_worth(compared.runs(arm))) for arm in compared.ordered if kind_of(arm) == "brain"]
    return [(arm, worth_sentence(one)) for arm, one in found if one is not None]


def holdout_table(compared: ComparedArms) -> Table:
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
    return ["arm", "sparsity", "searched on", "holdout"], rows


def profiles(compared: ComparedArms) -> list[RunResult]:
    """The chosen run of every arm at every sparsity."""
    found = [chosen(compared.runs(arm, sparsity)) for sparsity in compared.sparsities for arm in compared.ordered]
    return [run for run in found if run is not None]


def dense_units(results: Results) -> dict[str, int]:
    """Units of a dense layer, by part; where they are not known, the most that any run kept."""
    kept = {
        "attention": [max(run.attention) for run in results.runs],
        "mlp": [max(run.mlp) for run in results.runs],
    }
    return {part: results.units.get(part) or max(most, default=1) for part, most in kept.items()}


def _tested(test: PairedTest | None, measure: Measure) -> tuple[Cell, Cell]:
    """The difference with its interval, and the p-value with the least possible one where that says more."""
    if test is None:
        return Cell(ABSENT), Cell(ABSENT)
    words: Callable[[float], str] = percent_change if measure.log else "{:+.4f}".format
    interval = _interval(test, words) + (" (t)" if test.low is not None and not test.exact else "")
    difference = Cell(words(test.mean), interval)
    if test.p is None or test.least_p is None:
        return difference, Cell(ABSENT)
    return difference, Cell(f"{test.p:.2g}", f"least {test.least_p:.2g}" if test.verdict == "too few pairs" else "")


def _interval(estimate: IntervalEstimate | PairedTest, name: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{name(estimate.low)} to {name(estimate.high)}"
