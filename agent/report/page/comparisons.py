"""What the page of a comparison in `watch` shows, live: its figures, and how far those of its runs are that go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from self_pruner.agent.report.page.html import as_json
from self_pruner.agent.report.page.run_list import FINISHED, PLAN, row_of, runs_below, stamp, stat_of

Document = Callable[[Path], dict[str, Any]]  # of the comparison in a folder; whoever starts the server knows how


class Comparisons:
    """Those below a folder."""

    def __init__(self, base: Path, compared: Document) -> None:
        """`base` is the folder of the runs; `compared` makes the figures of a comparison."""
        self.base, self.compared = base, compared
        self.known: dict[Path, tuple[object, dict[str, Any]]] = {}  # the last figures, with the stamp of their records

    def document(self, folder: Path, _start: int) -> bytes:
        """The figures of one as JSON, and `going`: its runs that are not finished, as the list of runs has them."""
        now = _records(folder)
        known = self.known.get(folder)
        if known is None or known[0] != now:
            known = self.known[folder] = (now, self.compared(folder))
        going = [row_of(self.base, run) for run in self._going(folder)]
        return as_json({**known[1], "going": going}).encode()

    def look(self, folder: Path) -> object:
        """What is another whenever the document is."""
        return _records(folder), [(str(run), stamp(run)) for run in self._going(folder)]

    def _going(self, folder: Path) -> list[Path]:
        """Its run directories whose record is not written yet."""
        inside = (run for run in runs_below(self.base) if run.is_relative_to(folder) and run != folder)
        return [run for run in inside if not (run.parent / FINISHED).is_file()]


def _records(folder: Path) -> list[object]:
    """What changes whenever a run of the comparison is finished, or it has grown."""
    files = [
        *(folder / name for name in (PLAN, "dense.json", "results.json")),
        *sorted((folder / "runs").glob(f"*/{FINISHED}")),
    ]
    return [(str(file), stat_of(file)) for file in files]
