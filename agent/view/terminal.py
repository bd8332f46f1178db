"""What a person sees while a command goes on: bars in a terminal, plain lines where there is none.

Everything that comes from a model or a file goes to rich as `Text`, never as markup, and passes `printable` on its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from self_pruner.agent.view.frame import Frame, Row, SteadyLive
from self_pruner.agent.view.tables import fitting
from self_pruner.tools.text.printable import escaped, printable
from self_pruner.tools.text.quantities import duration

Report = Callable[[int, int], None]  # takes how much is done and how much there is in all

PLAIN_WIDTH = 110  # characters of a table that goes to a file
PLAIN_SECONDS = 20.0  # between two plain lines of one phase
SHOWN_FROM = 1.0  # seconds of a phase that leaves a line


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
    """Says everything to a person."""

    asks = True  # whether a question may be asked
    seconds_between = PLAIN_SECONDS  # two reports of one phase

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Screen(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        # whether it can change what it has shown: a terminal that is more than a printer
        self.moves = self.console.is_terminal and not self.console.is_dumb_terminal
        self._warned: set[str] = set()

    def tell(self, event: str, said: str | None = None, style: str = "", whole: bool = False, **facts: Any) -> None:
        """Something happened.

        Args:
            event: its name, for programs.
            said: what a person is told.
            style: of what is said.
            whole: leave its lines as they are, for commands and paths that are copied; others are wrapped at words in
                a terminal.
            facts: what a program is told, as values of JSON.
        """
        if said is not None:
            text = Text(printable(said), style, overflow="fold")
            self.console.print(text, soft_wrap=whole or not self.moves)

    def line(self, text: str, style: str = "", whole: bool = False) -> None:
        """A line that is no event of its own."""
        self.tell("note", text, style, whole, text=text)

    def warn(self, sentence: str, whole: bool = False) -> None:
        """A fallback or a difficulty that the user should know of; the same one is said once. `whole` as for `tell`."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            self.tell("warning", f"warning: {sentence}", "yellow", whole, text=sentence)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], brief: bool = False) -> None:
        """A small table, the first column being names; `brief`: without a frame."""
        table = fitting(title, header, rows, self.console.width, brief)
        if isinstance(table, Table):
            self.console.print(table)
            return
        for line in table:
            self.line(line)

    def result(self, line: str, show: Callable[[], None], **facts: Any) -> None:
        """What a command came to.

        Args:
            line: what a script needs of it, such as a path.
            show: shows it on this view.
            facts: what a program is told, as values of JSON.
        """
        show()

    @contextmanager
    def phase(self, name: str, unit: str = "") -> Iterator[Report]:
        """A phase with a bar; yields a function to report (done, total) with. Says how long it took, if long."""
        with self._timed(name):
            if not self.moves:
                yield self._reports(name, unit)
                return
            bar = _Bar(name)
            with self._drawn(bar.frame):
                yield bar.report

    @contextmanager
    def live(self, name: str, frame: Callable[[], Frame]) -> Iterator[Report]:
        """A phase with a frame of its own, which needs no reports; others may want them."""
        with self._timed(name), self._drawn(frame):
            yield lambda done, total: None

    @contextmanager
    def _drawn(self, frame: Callable[[], Frame]) -> Iterator[None]:
        """Keeps a frame below everything, where that is possible."""
        if not self.moves:
            yield
            return
        with SteadyLive(
            console=self.console, get_renderable=frame, refresh_per_second=4, transient=True, vertical_overflow="crop"
        ):
            yield

    def _reports(self, name: str, unit: str) -> Report:
        """Tells of progress now and then."""
        last = time.perf_counter()

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= self.seconds_between and total:
                last = now
                said = f"{name}: {100 * done // total}%"
                self.tell("progress", said, phase=name, done=done, total=total, unit=unit or None)

        return report

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Says that a phase begins, and how long it took."""
        self.tell("phase_begun", phase=name)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        told = f"{name}: {seconds:.0f} s" if seconds >= SHOWN_FROM else None
        self.tell("phase_ended", told, "dim", phase=name, seconds=round(seconds, 2))


class _Bar:
    """How far one phase is."""

    def __init__(self, name: str) -> None:
        self.name, self.began, self.done, self.total = name, time.perf_counter(), 0, 0

    def report(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def frame(self) -> Frame:
        """One row: the name, the bar, the time left by the pace so far."""
        row = Row(self.name, "", barred=True)
        if self.total:
            seconds = time.perf_counter() - self.began
            left = f", {duration(seconds * (self.total - self.done) / self.done)} left" if self.done else ""
            row = replace(row, text=f"{100 * self.done // self.total}%{left}", share=self.done / self.total)
        return Frame([row], label=len(self.name) + 1)
