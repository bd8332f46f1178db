"""Commands that get a signal at given places: `ended.py SIGNAL FOLDER PLACES WORDS...` carries out WORDS until there.

Whoever looks at their files from outside looks late on a busy machine: the command may be further by then, or at its
end. So the command looks itself, wherever it has written something, and sends the signal to itself.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny tensors: threads would only get in each other's way
Place = Callable[[Path], bool]  # whether a command that writes to this folder is there


def ended(words: list[object], folder: Path, place: str, sent: int = signal.SIGKILL) -> tuple[int, str]:
    """Carry out a command in a process of its own until it is at a `place`, as named here; its status and errors."""
    done = subprocess.run(
        command(words, folder, place, sent),
        **dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, timeout=600),
    )
    return done.returncode, done.stderr


def command(words: list[object], folder: Path, places: str, sent: int) -> list[str]:
    """What gets a signal at each of the places in turn."""
    return [sys.executable, __file__, str(int(sent)), str(folder), places, *map(str, words)]


@contextmanager
def standing(process: subprocess.Popen[str]) -> Iterator[None]:
    """While this lasts, a command that gets SIGSTOP at places stands at the next one; then it goes on."""
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None and found.si_code == os.CLD_STOPPED, "it has ended"
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield
    process.send_signal(signal.SIGCONT)


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


def prompts_kept(folder: Path) -> bool:
    """Of a run in the folder that is being prepared."""
    return any(folder.glob("tiny-*/prompts/*"))


def generation_over(folder: Path) -> bool:
    """The first one of a run in the folder."""
    from self_pruner.agent.run_files.trace import read_trace

    return any(
        record.kind == "judge" and record.generation == 1
        for trace in folder.glob("tiny-*/trace.jsonl")
        for record in read_trace(trace)
    )


def export_begun(folder: Path) -> bool:
    """Of a run in the folder."""
    return any(folder.glob("tiny-*/model.partial"))


def run_begun(folder: Path) -> bool:
    """Of an arm of a comparison in the folder that measures something."""
    return any(folder.glob("runs/evolution*/*/trace.jsonl"))


def decision_measured(folder: Path) -> bool:
    """One of a set in the folder."""
    from self_pruner.agent.decisions.decision_set import FILE

    if not (folder / FILE).exists():
        return False
    found = (folder / FILE).stat()
    return _any_measured(folder / FILE, found.st_ino, found.st_mtime_ns)


@cache  # it is looked at before each statement, and seldom another file
def _any_measured(file: Path, number: int, moment: int) -> bool:
    from self_pruner.agent.decisions.decision_set import read_set

    return any(one.measured for one in read_set(file).situations)


def _looks(there: Iterator[Callable[[], bool]], number: int) -> None:
    """From now on this process looks whenever it has written something; at each place in turn it gets a signal."""
    from self_pruner.agent.run_files.trace import TraceWriter
    from tests.campaign.statements import watch_databases

    is_there, looking = next(there), False

    def look(*_: object) -> None:
        nonlocal is_there, looking
        if looking:  # to look is no reason to look
            return
        looking = True
        found = is_there()
        if found:
            is_there = next(there, lambda: False)
        looking = False
        if found:
            os.kill(os.getpid(), number)

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

    number, folder = int(sys.argv[1]), Path(sys.argv[2])
    places: list[Place] = [eval(place, vars(here)) for place in sys.argv[3].split()]
    assert not any(place(folder) for place in places), "it was there before"
    _looks((partial(place, folder) for place in places), number)
    sys.argv = [str(ROOT / "main.py"), *sys.argv[4:]]
    sys.exit(main())
