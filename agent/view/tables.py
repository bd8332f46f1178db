"""A table that fits its terminal: with a frame, without one, or as a line a row, but with no word broken."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from self_pruner.tools.text.printable import printable

FRAMES = (  # box, blanks beside a cell; cells that each column takes besides its text, and the table besides these
    (HEAVY_HEAD, 1, 3, 1),
    (SIMPLE_HEAD, 1, 3, -3),
    (SIMPLE_HEAD, 0, 1, -1),
)


def fitting(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], width: int, brief: bool = False
) -> Table | list[str]:
    """The table, or its lines where there is no room for one.

    Args:
        title: above it; empty for none.
        header: of the columns; the first one has names.
        rows: as long as the header.
        width: cells that there are.
        brief: without a frame, however much room there is.
    """
    columns = [[printable(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    whole = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    for least in (whole, words):
        for box, padding, each, more in FRAMES[1:] if brief else FRAMES:
            room = width - each * len(columns) - more
            if sum(least) > room:
                continue
            table = Table(title=printable(title) or None, title_justify="left", title_style="bold", box=box)
            table.show_edge = table.pad_edge = box is HEAVY_HEAD
            table.padding = (0, padding)
            for number, (column, cells) in enumerate(zip(columns, _shrunk(whole, words, room), strict=True)):
                justify = "right" if number else "left"
                table.add_column(column[0], justify=justify, overflow="fold", width=cells)  # type: ignore[arg-type]
            for row in zip(*(column[1:] for column in columns), strict=True):
                table.add_row(*map(Text, row))
            return table
    named = zip(*columns, strict=True)
    heads = next(named)[1:]
    lines = [f"{name}: {', '.join(map(' '.join, zip(heads, cells, strict=True)))}" for name, *cells in named]
    return [title, *lines] if title else lines


def _shrunk(whole: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widths of columns that add up to `room` at the most: the widest give, down to their longest word."""
    widths = list(whole)
    while sum(widths) > room:
        widest = max((index for index in range(len(widths)) if widths[index] > words[index]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths
