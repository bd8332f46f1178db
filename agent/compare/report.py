"""What a comparison leaves behind: `results.json`, `table.md`, `table.csv`, `compare.html`, and the last screen."""

from __future__ import annotations

from pathlib import Path

from self_pruner.agent.compare.figures import Figures
from self_pruner.agent.compare.page import render
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.sentence import sentences
from self_pruner.agent.compare.table import as_csv, cost, markdown_page, quality, table_rows
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.view import View

RESULTS, MARKDOWN, CSV, PAGE = "results.json", "table.md", "table.csv", "compare.html"


def write_all(folder: Path, results: Results) -> None:
    """Write every file, each so that a reader finds the old one or the new; of unfinished comparisons what there is.

    Raises:
        WriteError: a file could not be written.
    """
    comparison = Figures(results)
    rows = table_rows(comparison)
    atomic_write(folder / RESULTS, results.model_dump_json(indent=1) + "\n")
    atomic_write(folder / MARKDOWN, markdown_page(rows, comparison.texts, sentences(results), notes(results)))
    atomic_write(folder / CSV, as_csv(rows, comparison.texts))
    atomic_write(folder / PAGE, render(results))


def show(results: Results, view: View) -> None:
    """The last screen: the tables and what they come to."""
    comparison = Figures(results)
    rows = table_rows(comparison)
    view.line("")
    if comparison.arms:
        view.table("Perplexity by reporting text, lower is better", *quality(rows, comparison.texts, brief=True))
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
