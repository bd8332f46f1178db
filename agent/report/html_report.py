"""The report: the page of a run with its data inside, one file that needs no server and no network."""

from __future__ import annotations

from contextlib import suppress

from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.report.page.html import page_html
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory


def write_report(run: RunDirectory, finished: str | None = None) -> list[str]:
    """Write `report.html`; of an unfinished run it holds what there is.

    Args:
        run: its folder.
        finished: why the search ended, of a run that is finished once this is written; else its status is asked.

    Returns:
        What is missing, in sentences.
    """
    data = page_data(run, finished=finished)
    atomic_write(run.report, page_html(f"Self-Pruner: {run.name}", data))
    return list(data["gaps"])


def stopped(run: RunDirectory, reason: str) -> None:
    """Say why a run stopped, in its status and on its page where it has one, as far as what stopped it allows that."""
    with suppress(Exception):  # the disk or the memory may be too full to say so
        run.set_status("stopped", reason)
        if (run.path / RESULT).exists():
            write_report(run)
