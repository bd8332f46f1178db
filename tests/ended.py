"""Commands that a signal ends at a given place: `ended.py SIGNAL FOLDER PLACE WORDS...` carries out WORDS until there.

Whoever looks at their files from outside looks late on a busy machine: the command may be further by then, or at its
end. So the command looks itself, wherever it has written something, and sends the signal to itself.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny tensors: threads would only get in each other's way
Place = Callable[[Path], bool]  # whether a command that writes to this folder is there


def ended(words: list[object], folder: Path, place: str, sent: int = signal.SIGKILL) -> tuple[int, str]:
    """Carry out a command in a process of its own until it is at a `place`, as named here; its status and errors."""
    command = [sys.executable, __file__, str(int(sent)), str(folder), place, *map(str, words)]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, timeout=600
    )
    return done.returncode, done.stderr


def lines_in_trace(count: int) -> Place:
    """Of a run in the folder."""

    def there(folder: Path) -> bool:
        return any(trace.read_bytes().count(b"\n") >= count for trace in folder.glob("tiny-*/trace.jsonl"))

    return there


def sensitivities_in_memory(count: int) -> Place:
    """Between two of the four sequences on which sensitivities are measured: in the middle of a step."""

    def there(folder: Path) -> bool:
        try:
            with closing(sqlite3.connect(f"file:{folder / 'memory.sqlite'}?mode=ro", uri=True)) as memory:
                return bool(memory.execute("SELECT count(*) FROM sensitivities").fetchone()[0] >= count)
        except sqlite3.OperationalError:  # not made yet
            return False

    return there


def export_begun(folder: Path) -> bool:
    """Of a run in the folder."""
    return any(folder.glob("tiny-*/model.partial"))


def run_begun(folder: Path) -> bool:
    """Of an arm of a comparison in the folder that measures something."""
    return any(folder.glob("runs/evolution*/*/trace.jsonl"))


def decision_measured(folder: Path) -> bool:
    """One of a set in the folder."""
    from self_pruner.agent.decisions.decision_set import FILE, read_set

    return (folder / FILE).exists() and any(one.measured for one in read_set(folder / FILE).situations)


def _looks(there: Callable[[], bool], number: int) -> None:
    """From now on this process looks whenever it has written something; the first time it is there it gets a signal."""
    from self_pruner.agent.run_files.trace import TraceWriter
    from tests.campaign.statements import watch_databases

    looking = True

    def look(*_: object) -> None:
        nonlocal looking
        if looking:
            looking = False  # to look is no reason to look
            if there():
                os.kill(os.getpid(), number)
            else:
                looking = True

    def afterwards(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def done(*arguments: Any, **options: Any) -> Any:
            answer = real(*arguments, **options)
            look()
            return answer

        setattr(owner, name, done)

    watch_databases(look)  # before each statement, which is after the last one
    afterwards(TraceWriter, "write")
    for name in ("mkdir", "rename", "replace"):
        afterwards(os, name)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from main import main
    from tests import ended as here

    number, folder, place = int(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3], vars(here))
    assert not place(folder), "it was there before"
    _looks(lambda: bool(place(folder)), number)
    sys.argv = [str(ROOT / "main.py"), *sys.argv[4:]]
    sys.exit(main())
