"""Who listens to a command: a person, a script that wants one line (`--quiet`), or a program (`--json`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from typing import Any

import click

from self_pruner.agent.view import JsonView, QuietView, View
from self_pruner.agent.view.events import FORMAT
from self_pruner.memory.errors import SelfPrunerError, SettingsError
from self_pruner.tools.text.printable import printable


def heard(carry_out: Callable[..., int]) -> Callable[..., int]:
    """Gives a command `--quiet` and `--json`, and in their place the view that it speaks to."""

    @click.option("--quiet", is_flag=True, help="print one line, the path of what was made; warnings go to stderr")
    @click.option("--json", is_flag=True, help="print events, a JSON object a line (docs/terminal.md)")
    @wraps(carry_out)
    def carry_out_heard(quiet: bool, json: bool, **given: Any) -> int:
        if quiet and json:
            raise SettingsError("--quiet prints one line and --json every event: give only one of them")
        if not json:
            return carry_out(view=QuietView() if quiet else View(), **given)
        view = JsonView()
        context = click.get_current_context()
        view.tell("begin", format=FORMAT, command=context.command.name)
        try:
            with redirect_stdout(sys.stderr):  # what a library prints is no event
                return carry_out(view=view, **given)
        except KeyboardInterrupt:
            view.tell("stopped")
            raise

    return carry_out_heard


@contextmanager
def refused(words: Sequence[str]) -> Iterator[None]:
    """Inside, what a command line is refused for is an event too, where it asks for events.

    Raises:
        SettingsError: in place of an OSError, such as that of a path that is too long or may not be read.
    """
    try:
        with _faults_of_files():
            yield
    except SelfPrunerError as error:
        if "--json" in words:
            JsonView().tell("error", text=printable(str(error)), status=error.exit_code)
        raise


@contextmanager
def _faults_of_files() -> Iterator[None]:
    """What the system says of a file, as a sentence; a reader of a pipe that has gone is no fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename!r} cannot be used: " if error.filename is not None else ""
        reason = error.strerror or str(error).partition("\n")[0] or type(error).__name__
        raise SettingsError(f"{where}{reason}") from error
