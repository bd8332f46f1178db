"""Processes that never outlive this one, also where it is killed: see `leash.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LEASH = Path(__file__).with_name("leash.py")


@contextmanager
def leashed(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """How to start `command` with `subprocess`: what is started so is gone by the end of the block, or of this process.

    It has a process group of its own, so a Ctrl-C in the terminal is heard by us alone, who may still need it.
    """
    reading, writing = os.pipe()  # nobody else inherits the writing end
    try:
        yield {
            "args": [sys.executable, "-I", "-S", str(LEASH), str(reading), *command],
            "pass_fds": (reading,),
            "start_new_session": True,
        }
    finally:
        os.close(writing)
        os.close(reading)
