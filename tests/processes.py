"""What tests find out of processes, of open files and of ports, whatever else goes on meanwhile."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SECONDS = 120.0  # that an end may take on a machine that is busy with other work
OWN = range(10_000, 30_000)  # ports that no system gives to whoever asks for any


def is_gone(number: int, seconds: float = SECONDS) -> bool:
    """Whether a process ends; one that nobody collects counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{number}/stat", encoding="utf-8") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):  # before it was opened, or before it was read
            return True
        time.sleep(0.05)
    return False


def open_files_of(folder: Path) -> list[str]:
    """What this process has open below `folder`."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list the open files of a process")
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the list itself, and what threads of other tests close meanwhile
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [target for target in found if target.startswith(str(folder))]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port at which nobody answers for as long as the block lasts: it is taken, and nobody listens.

    A port that was free a moment ago may be another test's server by now.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def free_port() -> int:
    """A port for a server that must be told one, and that nobody else is given until the server takes it."""
    while True:
        port = random.SystemRandom().choice(OWN)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
