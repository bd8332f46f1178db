"""`tell`, `pause` and `stop`: what is said to a run that goes on, from another terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from self_pruner.agent.command_line.foreign_runs import holds_comparison
from self_pruner.agent.command_line.parser import command, the_run
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError


@command()
@the_run
@click.argument("note", metavar="NOTE", help="what its brain is to read, in quotation marks")
def tell(path: Path, note: str) -> int:
    """Write a note to a run, which its brain reads from its next turn on."""
    from self_pruner.agent.run_files.steering import SHOWN, to_go_on
    from self_pruner.agent.run_files.steering import tell as write

    if holds_comparison(path):
        raise RunDirectoryError(f"{path} is a comparison, whose arms are told nothing: a note would favour one")
    write(path, note)
    said = f"The brain reads it from its next turn on, as one of the last {SHOWN} notes"
    command = to_go_on(path)
    View().line(f"{said}, once the run goes on: {command}" if command else f"{said}.", whole=True)
    return 0


@command()
@the_run
@click.option("--off", is_flag=True, help="go on with a run that is paused")
def pause(path: Path, off: bool) -> int:
    """Let a run wait before its next turn; with --off it goes on."""
    return _ask(path, "go on" if off else "pause")


@command()
@the_run
def stop(path: Path) -> int:
    """Let a run end after the step in hand, as Ctrl-C does; resume goes on with it."""
    return _ask(path, "stop")


def _ask(path: Path, wanted: Literal["pause", "go on", "stop"]) -> int:
    from self_pruner.agent.run_files.run_lock import is_held
    from self_pruner.agent.run_files.steering import request

    runs = [path]
    if holds_comparison(path):
        runs = [found.parent for found in sorted(path.glob("runs/*/*/settings.toml")) if is_held(found.parent)]
        if not runs:
            raise RunDirectoryError(f"no run of the comparison {path} is going on")
    for run in runs:
        View().line(request(run, wanted), whole=True)
    return 0
