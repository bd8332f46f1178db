"""What a comparison leaves behind: `results.json`, `table.md`, `table.csv`, `compare.html`, and the last screen.

All of it is made from the results alone, and these from the records of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from self_pruner.agent.compare.figures import ComparedArms
from self_pruner.agent.compare.folder import RESULTS, ComparisonFolder, collect, known_failures
from self_pruner.agent.compare.page_data import comparison_data
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.sentences import sentences
from self_pruner.agent.compare.tables import BRIEF, as_csv, cost, markdown, quality, table_rows
from self_pruner.agent.report.page.html import page_html
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.view import View


def write_all(folder: Path, results: Results) -> None:
    """Write every file, each so that a reader finds the old one or the new; of unfinished comparisons what there is.

    Raises:
        WriteError: a file could not be written.
    """
    compared = ComparedArms(results)
    atomic_write(folder / RESULTS, results.model_dump_json(indent=1) + "\n")
    atomic_write(folder / "table.md", markdown_page(results))
    atomic_write(folder / "table.csv", as_csv(table_rows(compared), compared.texts))
    atomic_write(folder / "compare.html", render(results, folder))


def write_finished(folder: Path, failed: Mapping[str, str] | None = None) -> Results:
    """Write every file of the comparison in `folder` from all that is finished, whoever did it; returns that.

    Args:
        folder: of the comparison, whose plan others may have added to.
        failed: by its slug why a run is missing; None for what was written last.

    Raises:
        SettingsError: its plan or a record is damaged.
        WriteError: a file could not be written.
    """
    with closing(RunLock(folder, wait=True)):  # whoever writes last has seen all of it
        results = collect(ComparisonFolder.open(folder), known_failures(folder) if failed is None else failed)
        write_all(folder, results)
    return results


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


def render(results: Results, folder: Path | None = None) -> str:
    """The page as HTML: one file that needs nothing else; `folder` is where its runs are, if they are to be linked."""
    data = comparison_data(results, folder)
    return page_html(f"Self-Pruner: {data['comparison']}", data)
