"""For scripts: warnings on standard error as they come, and one line on standard output when all is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from self_pruner.agent.view.terminal import Screen, View
from self_pruner.tools.text.printable import printable

HEARD = ("warning", "stopping", "stopped")  # what is said, on standard error


class QuietView(View):
    """Says only what went wrong, and at the end the one line that a script needs."""

    asks = False

    def __init__(self) -> None:
        super().__init__(Screen(stderr=True, highlight=False, soft_wrap=True))
        self.moves = False

    def tell(self, event: str, said: str | None = None, style: str = "", whole: bool = False, **facts: Any) -> None:
        """Only what may not be missed."""
        if event in HEARD:
            super().tell(event, said, style, whole=True)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], brief: bool = False) -> None:
        """No table."""

    def result(self, line: str, show: Callable[[], None], **facts: Any) -> None:
        """The line alone."""
        print(printable(line), file=sys.stdout, flush=True)
