"""`watch`: the page of runs in a browser, while they go on and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from self_pruner.agent.command_line.parser import PATH, command
from self_pruner.agent.report.stopping import Stop, exit_status
from self_pruner.agent.view import View

PORT = 8765


@command()
@click.argument("path", type=PATH, metavar="RUN|RUNS", default=Path("runs"))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, metavar="N", help="of this machine; 0: any (default 8765)"
)
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
