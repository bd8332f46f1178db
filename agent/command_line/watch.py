"""`watch`: the page of runs in a browser, while they go on and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from self_pruner.agent.command_line.parser import PATH, Word, command
from self_pruner.agent.report.stopping import Stop, exit_status
from self_pruner.agent.view import View

PORT = 8765


def _port(text: str) -> int:
    """The number of a port, or ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise ValueError(f"it takes a whole number from 0 to 65535, got {text!r}")
    return int(text)


@command()
@click.argument(
    "path", type=PATH, metavar="[RUN|RUNS]", default=Path("runs"), help="one, or a folder of them (default: runs)"
)
@click.option("--port", type=Word(_port), default=PORT, metavar="N", help="of this machine; 0: any (default 8765)")
@click.option("--open", "show", is_flag=True, help="open a browser")
def watch(path: Path, port: int, show: bool) -> int:
    """Show runs in a browser, while they go on and afterwards."""
    from self_pruner.agent.report.page.server import serve

    try:
        serve(path, port, show, _compared, View())
    except Stop:
        return exit_status()
    return 0


def _compared(folder: Path) -> dict[str, Any]:
    from self_pruner.agent.compare.page_data import of_folder  # whose statistics take a second to load

    return of_folder(folder)
