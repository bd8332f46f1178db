"""In place of a new interpreter that runs a script: a fork that has everything imported, and runs it."""

from __future__ import annotations

import atexit
import inspect
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def as_started() -> None:
    """Signals, streams, temporary files and threads as a new interpreter has them."""
    import tempfile

    import torch

    torch.set_num_threads(1)  # a fork's first use of torch's pool makes it anew, which two threads at once do wrongly

    tempfile.tempdir = None
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115


def finish(status: int) -> NoReturn:
    """What an interpreter does at its end, without going back into the code that forked."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


_real_execvp = os.execvp
_real_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_names = list(inspect.signature(_real_execute).parameters)
STREAMS = ("p2cread", "c2pwrite", "errwrite")
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
after_fork: list[Callable[[], None]] = []  # what takes the faults off in a child's children


def forked(self: subprocess.Popen, *arguments: object) -> None:  # type: ignore[type-arg]
    """In place of a new interpreter that runs a script: a fork that runs it. Other programs start as ever."""
    given = dict(zip(_names[1:], arguments, strict=True))
    command = [os.fspath(word) for word in given["args"]] if not isinstance(given["args"], str) else []
    if script_of(command) is None:
        _real_execute(self, *arguments)
        return
    # A real start runs nothing of Python's between fork and program, where an interrupt would be swallowed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    self.pid = os.fork()
    if self.pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._child_created = True
        self._close_pipe_fds(*(given[end] for end in PIPES))  # type: ignore[attr-defined]
        return
    streams = tuple(given[name] if given[name] != -1 else number for number, name in enumerate(STREAMS))
    stand_in(
        command,
        streams,
        given["pass_fds"],
        cwd=given["cwd"],
        env=given["env"],
        session=given["start_new_session"],
        first=(*after_fork, *filter(None, [given["preexec_fn"]])),
        then=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    )


def stand_in(
    command: list[str],
    streams: Sequence[int],
    kept: Iterable[int],
    *,
    cwd: str | Path | None,
    env: Mapping[str, str] | None,
    session: bool,
    first: Iterable[Callable[[], object]] = (),
    then: Callable[[], object] = lambda: None,
) -> NoReturn:
    """Be, in a fork, the program that `command` starts: run its script with these streams and descriptors, and end."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for descriptor in set(range(3, 4096)).difference(kept):  # locks and databases are the parent's
            with suppress(OSError):
                os.close(descriptor)
        if session:
            os.setsid()
        for one in first:
            one()
        if cwd:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        as_started()
        then()
        _modules_cache()
        os.execvp = _become  # type: ignore[assignment]
        _become(command[0], command)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        finish(status)


def script_of(command: list[str]) -> int | None:
    """Where the script stands in a command that starts one with this interpreter, or None."""
    if not command or command[0] != sys.executable:
        return None
    first = next((number for number, word in enumerate(command[1:], 1) if word not in ("-I", "-S", "-u")), 0)
    return first if command[first].endswith(".py") else None


def _become(file: str, command: list[str]) -> None:
    """Run a script in this process, as if it had been started for that, and end; become any other program."""
    script = script_of(command)
    if script is None:
        _real_execvp(file, command)
    sys.argv = command[script:]
    runpy.run_path(command[script], run_name="__main__")
    raise SystemExit(0)


def _modules_cache() -> None:
    """Where transformers keeps foreign code, read from the environment at import."""
    from transformers import dynamic_module_utils
    from transformers.utils import hub

    folder = os.environ.get("HF_MODULES_CACHE")
    if folder:
        for module in (dynamic_module_utils, hub):
            if hasattr(module, "HF_MODULES_CACHE"):
                module.HF_MODULES_CACHE = folder
