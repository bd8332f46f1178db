"""Rows that stay where they are: a frame has as many lines for one terminal, whatever is in it, and none is too long.

Terminals disagree about the width of some characters, and a line that is wider than was thought moves all that is below
it. So those characters are left out of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from self_pruner.tools.text.printable import printable

WIDE = 40  # cells of a terminal that has room for labels
BAR = 30  # cells of a bar at the most
_DISPUTED = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff"
    "\U000e0000-\U000e0fff]"  # joiners, variation selectors, halves of flags, tones of skin, tags
)


@dataclass(frozen=True)
class Row:
    """A label and what stands beside it."""

    label: str
    text: str
    lines: int = 1  # that it takes, whether there is so much text or not
    share: float | None = None  # of a bar before the text, 0 to 1; None for a bar that only says that something goes on
    barred: bool = False  # whether there is a bar


@dataclass(frozen=True)
class Frame:
    """Rows below each other, cut to the terminal."""

    rows: Sequence[Row]
    label: int  # cells of a label with the blank behind it

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines that leave the last column free, and two rows of the screen."""
        width = max(2, options.max_width - 1)
        label = min(self.label, width // 2) if width >= WIDE else 0
        left = max(1, options.size.height - 2)
        for row in self.rows:
            for number, line in enumerate(_lines(row, width, label)[:left]):
                if label:
                    yield Text(set_cell_size("" if number else cut(row.label, label - 1), label), "bold", end="")
                yield from line
                yield Segment.line()
            left = max(0, left - row.lines)


def _lines(row: Row, width: int, label: int) -> list[list[ProgressBar | Text]]:
    """What stands beside the label, or after it where there is no room for one."""
    if not row.barred or not label:
        text = row.text if label else f"{row.label} {row.text}"
        return [[Text(line, end="")] for line in fitted(text, width - label, row.lines)]
    bar = min(BAR, (width - label) // 3)
    moving = ProgressBar(1.0, row.share or 0.0, bar, pulse=row.share is None)
    return [[moving, Text(cut(f" {row.text}", width - label - bar), end="")]]


class SteadyLive(Live):
    """A display that is drawn again only where something in it changed, so it does not flicker and can be selected."""

    _width = 0  # of the terminal when it was drawn last
    _drawn: list[list[Segment]] | None = None

    def refresh(self) -> None:
        """Draw what is there now."""
        with self._lock:
            lines = self.console.render_lines(self.get_renderable(), pad=False)
            width = self.console.width
            if (width, lines) == (self._width, self._drawn):
                return
            if self._drawn and 0 < width < self._width:  # the terminal has broken the lines that are there into more
                rows = sum(max(1, -(-Segment.get_line_length(line) // width)) for line in self._drawn)
                self._live_render._shape = (width, rows)
            self._width, self._drawn = width, lines
            super().refresh()


def fitted(text: str, width: int, lines: int) -> list[str]:
    """`text` in exactly so many lines of at most `width` cells, wrapped at words; what has no room is an ellipsis."""
    wrapped = [line.plain.rstrip() for line in Text(flat(text)).wrap(_MEASURE, width, overflow="fold")]
    if len(wrapped) > lines:
        wrapped[lines - 1 :] = [cut(" ".join(wrapped[lines - 1 :]), width)]
    return wrapped + [""] * (lines - len(wrapped))


def cut(text: str, width: int) -> str:
    """`text` in one line of at most `width` cells; what has no room is an ellipsis."""
    line = flat(text)
    return line if cell_len(line) <= width else set_cell_size(line, max(0, width - 1)).rstrip() + "…"


def flat(text: str) -> str:
    """`text` in one line, of characters whose width terminals agree about."""
    return re.sub(r"\s+", " ", _DISPUTED.sub("", printable(text))).rstrip()


_MEASURE = Console()  # that wraps text; nothing is written to it
