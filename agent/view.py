"""What a person sees while a run goes on: bars in a terminal, plain lines where there is none.

Everything that comes from a model or a file goes to rich as `Text`, never as markup, and passes `printable` on its way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from self_pruner.tools.text.printable import escaped, printable

if TYPE_CHECKING:  # torch takes seconds to load, and --help needs none of it
    from self_pruner.tools.workbench import Progress as Report

PLAIN_WIDTH = 110  # characters of a table that goes to a file
PLAIN_SECONDS = 20.0  # between two plain lines of one phase


class Screen(Console):
    """A console whose terminal obeys nothing that a text says, wherever the text comes in."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of a renderable, their text escaped; rich's own controls are no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Whoever reads the output has gone: an error like any other, where rich would end the process."""
        raise BrokenPipeError


class View:
    """The screen of a run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Screen(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH

    def line(self, text: str, style: str = "") -> None:
        """One line, as it is."""
        self.console.print(Text(printable(text), style=style))

    def warn(self, sentence: str) -> None:
        """A fallback or a difficulty that the user should know of."""
        self.line(f"warning: {sentence}", "yellow")

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table, the first column being names."""
        table = Table(title=printable(title), title_justify="left", title_style="bold")
        for index, name in enumerate(header):
            table.add_column(printable(name), justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print(table)

    @contextmanager
    def phase(self, name: str, unit: str = "") -> Iterator[Report]:
        """A phase with a bar; yields a function to report (done, total) with. Says how long it took, if long."""
        start = time.perf_counter()
        name = printable(name)
        if self.console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(name, total=None)

                def report(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total or None)

                yield report
        else:
            yield _plain(self, name)
        seconds = time.perf_counter() - start
        if seconds >= 1.0:
            self.line(f"{name}: {seconds:.0f} s", "dim")

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )


def _plain(view: View, name: str) -> Report:
    last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= PLAIN_SECONDS and total:
            last = now
            view.line(f"{name}: {100 * done // total}%")

    return report
