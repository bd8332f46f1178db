"""A fork server: everything is imported once, and every command line runs in a fork of this process.

Importing torch, transformers and lm-eval takes fifteen seconds and a whole run of a tiny model two, so a hundred killed
runs cost minutes instead of an hour. A fork is a process like any other: it can be killed, its locks fall with it, and
its own children (verification, `evaluate`) are processes again, forked in turn in place of a new interpreter.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.stand_ins import as_started, finish, forked

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0  # seconds that one command may take before it counts as hanging
LEFTOVER = 60.0  # seconds that children may outlive their parent
LOADED = """
self_pruner.agent.command_line.commands self_pruner.agent.session self_pruner.agent.report.html_report
self_pruner.agent.result.evaluate_checkpoint self_pruner.agent.compare.joining self_pruner.agent.compare.runner
self_pruner.agent.compare.page self_pruner.agent.brain.remote
lm_eval.models.huggingface transformers.models.llama.modeling_llama
transformers.models.auto.modeling_auto transformers.generation.utils cma llguidance datasets accelerate pyarrow
langgraph.checkpoint.sqlite langchain_core.messages jinja2.sandbox
"""
SUBREAPER = 36  # prctl's name for a process that orphans are given to
_running: set[int] = set()  # commands that have not been waited for
BROKEN = 99  # exit status of a command that ended with a traceback


@dataclass(frozen=True)
class Ended:
    """How one command line ended."""

    status: int  # exit status, or minus the signal
    output: str
    errors: str
    seconds: float
    orphans: tuple[str, ...]  # what was still running after it

    @property
    def fault(self) -> str | None:
        """What no command may do, however it is disturbed."""
        if "Traceback" in self.errors + self.output:
            return f"a traceback: {self.errors.strip().splitlines()[-1]}"
        if self.orphans:
            return f"left running: {', '.join(self.orphans)}"
        return None


def load_everything() -> None:
    """Import what the commands import, so that no fork does."""
    import gc
    from importlib import import_module

    import torch

    torch.set_num_threads(1)
    for name in LOADED.split():
        import_module(name)
    gc.collect()
    gc.freeze()


def call(
    words: Sequence[object],
    folder: Path,
    prepare: Callable[[], None] = lambda: None,
    patience: float = PATIENCE,
) -> Ended:
    """Carry out one command line in a fork; `prepare` is called in it first, to install what shall go wrong."""
    return wait(begin(words, folder, prepare), patience)


@dataclass(frozen=True)
class Begun:
    """A command line that is being carried out."""

    pid: int
    output: Path
    errors: Path
    start: float


def begin(
    words: Sequence[object],
    folder: Path,
    prepare: Callable[[], None] = lambda: None,
    name: str = "call",
) -> Begun:
    """Fork the command line; its output goes to files beside `folder`, temporary files into `folder`/tmp."""
    with suppress(OSError):  # no room is what some cases are about
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
    output, errors = folder.with_name(f"{folder.name}.{name}.out"), folder.with_name(f"{folder.name}.{name}.err")
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # whoever loses its parent becomes our child, and is found
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _running.clear()
        _child([str(word) for word in words], folder, prepare, output, errors)
    _running.add(pid)
    return Begun(pid, output, errors, start)


def wait(begun: Begun, patience: float = PATIENCE) -> Ended:
    """Wait for its end; of the last one in hand also for that of the processes that were begun.

    What keeps a command's children on a leash has no parent while that command is still carried out.
    """
    deadline = begun.start + patience
    hung = False
    while True:
        pid, status = os.waitpid(begun.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline and not hung:
            hung = True
            os.kill(begun.pid, signal.SIGKILL)
        time.sleep(0.005)
    seconds = time.monotonic() - begun.start
    output, errors = (path.read_text(encoding="utf-8", errors="replace") for path in (begun.output, begun.errors))
    for path in (begun.output, begun.errors):
        path.unlink()
    _running.discard(begun.pid)
    orphans = () if _running else _orphans()
    if hung:
        orphans = (f"the command itself, after {patience:.0f} s", *orphans)
    return Ended(os.waitstatus_to_exitcode(status), output, errors, seconds, orphans)


def _orphans() -> tuple[str, ...]:
    """What commands that have ended left running; it is ended too."""
    deadline = time.monotonic() + LEFTOVER
    while (left := _left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return tuple(left.values())


def _left() -> dict[int, str]:
    """Our children that are no commands in hand: what lost its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in _running:
            continue
        with suppress(OSError, IndexError, ValueError):
            name, _, rest = (entry / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            if int(parent) != os.getpid():
                continue
            if state in "ZX":
                os.waitpid(int(entry.name), os.WNOHANG)
            else:
                found[int(entry.name)] = f"process {entry.name} ({name.partition('(')[2]})"
    return found


def _child(
    words: list[str],
    folder: Path,
    prepare: Callable[[], None],
    output: Path,
    errors: Path,
) -> None:
    """The fork: a session of its own, its output in files, its temporary files in its folder; never returns."""
    status = BROKEN
    try:
        os.setsid()
        for number, path in ((1, output), (2, errors)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ["TMPDIR"] = str(folder / "tmp")
        as_started()
        subprocess.Popen._execute_child = forked  # type: ignore[attr-defined]
        prepare()
        from main import main

        sys.argv = ["main.py", *words]
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        finish(status)
