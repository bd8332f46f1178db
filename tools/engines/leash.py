"""Runs a command that ends, with all it started, as soon as whoever asked for it is gone: `leash.py FD COMMAND...`.

FD is the reading end of a pipe whose writing end only the asker has, so it closes with the asker, however that ends.
A process that waits for it is left in the command's own process group, and this one becomes the command: its number,
its exit status and its streams are the command's. Nothing is asked of the kernel that only Linux has, and nothing is
run between fork and exec in a process with threads. Needs the standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time

PATIENCE = 5.0  # seconds that the command may take to end when it is asked to


def hold(pipe: int, leader: int) -> None:
    """Wait until the pipe closes, then end the process group of `leader`, ourselves included."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the command, which has the same group
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)  # whoever reads what the command says waits for its last writer
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and _lives(leader):
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def main(words: list[str]) -> None:
    """Leave the process that waits and become the command."""
    pipe, command = int(words[0]), words[1:]
    leader = os.getpid()
    between = os.fork()
    if between == 0:
        if os.fork() == 0:  # a grandchild: the command finds no child that it does not know of
            hold(pipe, leader)
        os._exit(0)
    os.waitpid(between, 0)
    os.close(pipe)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]!r} cannot be run: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
