"""For programs: every event as one object of JSON on a line of its own, and nothing else on standard output.

docs/terminal.md lists the events. A reader ignores those, and those facts, that it does not know; `FORMAT` rises where
one that was there is gone or means something else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from self_pruner.agent.view.frame import Frame
from self_pruner.agent.view.terminal import Report, View
from self_pruner.tools.text.redaction import without_keys

FORMAT = 1
SECONDS = 3.0  # between two reports of progress of one phase


class JsonView(View):
    """Tells facts and no sentences, but for those that have no facts."""

    asks = False
    seconds_between = SECONDS

    def __init__(self, output: TextIO | None = None) -> None:
        """Write to `output`, by default standard output as it is now."""
        super().__init__()
        self.moves = False
        self.output = output or sys.stdout

    def tell(self, event: str, said: str | None = None, style: str = "", whole: bool = False, **facts: Any) -> None:
        """One line, at once."""
        if event == "note" and not str(facts.get("text")).strip():
            return
        line = json.dumps(without_keys({"event": event, **facts}))  # in ASCII, so no terminal obeys it
        self.output.write(f"{line}\n")
        self.output.flush()

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], brief: bool = False) -> None:
        """No table: its figures are facts of the result."""

    def result(self, line: str, show: Callable[[], None], **facts: Any) -> None:
        """The last event of a command that came to its end."""
        self.tell("result", **facts)

    @contextmanager
    def live(self, name: str, frame: Callable[[], Frame]) -> Iterator[Report]:
        """A phase like any other."""
        with self.phase(name) as report:
            yield report
