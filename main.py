"""Self-Pruner's command line; without a command it runs."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence

from self_pruner.agent.report.stopping import exit_status, listen
from self_pruner.memory.errors import SelfPrunerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit status."""
    if arguments is None:
        listen()
        _take_streams()
    try:
        status = _carry_out(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # here a reader that has gone is an error like any other
        return status
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # what is still to be written has nobody to read it
            os.dup2(nowhere, stream)
        return 128 + signal.SIGPIPE


def _take_streams() -> None:
    """Nothing that is said can fail for want of a character, or of a standard output that was closed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _carry_out(arguments: Sequence[str]) -> int:
    try:
        # Imported here so that Ctrl-C during the seconds that libraries take to load is no traceback either.
        from self_pruner.agent.command_line.commands import command_line

        return command_line.carry_out(arguments)
    except SelfPrunerError as error:
        from self_pruner.tools.text.printable import printable

        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return exit_status()


if __name__ == "__main__":
    sys.exit(main())
