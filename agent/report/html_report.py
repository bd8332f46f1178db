"""The report: the page of a run with its data inside, one file that needs no server and no network."""

from __future__ import annotations

from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.report.page.html import page_html
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory


def write_report(run: RunDirectory) -> list[str]:
    """Write `report.html`; of an unfinished run it holds what there is. Returns what is missing, in sentences."""
    data = page_data(run)
    atomic_write(run.report, page_html(f"Self-Pruner: {run.name}", data))
    return list(data["gaps"])
