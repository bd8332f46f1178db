"""How a process is asked to end: the first signal stops a run so that it can be resumed, the second ends it at once.

Ctrl-C, SIGTERM (Slurm, Kubernetes) and SIGHUP (a terminal that was closed) mean the same. Python runs its handlers in
the main thread and between bytecodes, so none is run during a long tensor operation or while the main thread waits for
others. A second signal is therefore heard by a thread that does nothing but wait for it, and ends the process without
asking anybody: all that is kept is written so that it stands that.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# Seconds in which a signal is another's echo: `timeout`, and a terminal that closes and its shell, send each twice.
ECHO: dict[int, float] = {signal.SIGINT: 0.05, signal.SIGTERM: 1.0, signal.SIGHUP: 1.0}
SHOW_CURSOR = b"\x1b[?25h\r\n"  # rich hides it while something moves


class Stop(KeyboardInterrupt):
    """A signal asked the process to end, and nothing was going on that ends by itself."""


class _Heard:
    """What this process was asked; there is one, as there is one process."""

    signal: int | None = None  # the first
    drain: Callable[[], None] | None = None  # what the first one calls in the place of raising Stop
    terminals: tuple[int, ...] = ()  # descriptors that were a terminal in the beginning


def listen() -> None:
    """Hear signals from now on, for as long as the process lives. What it was started to ignore stays ignored."""
    _Heard.terminals = tuple(number for number in (0, 1, 2) if os.isatty(number))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    for number in ECHO:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background of a script
            signal.signal(number, _handle)


def exit_status() -> int:
    """What the shell calls the end by the signal that was heard first: 128 and its number; 130 where none was."""
    return 128 + (_Heard.signal or signal.SIGINT)


@contextmanager
def draining(ask: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first signal calls `ask`, and what goes on there ends by itself.

    Raises:
        Stop: at the end of the block, where there was a signal; whatever comes after it is not begun.
    """
    _Heard.drain, before = ask, _Heard.signal
    try:
        yield
    finally:
        _Heard.drain = None
    if _Heard.signal != before:
        raise Stop


@contextmanager
def heeding(run: Path) -> Iterator[None]:
    """Inside the block a request to stop, in the directory of the run that goes on there, counts as a signal."""
    # main.py loads this file before anything that takes time
    from self_pruner.agent.run_files.steering import SECONDS, forget_request, requested

    over = threading.Event()

    def look() -> None:
        while not over.wait(SECONDS):
            if requested(run) == "stop":
                # who uses this as a library, and hears no SIGTERM, gets a KeyboardInterrupt
                number = signal.SIGTERM if signal.getsignal(signal.SIGTERM) is _handle else signal.SIGINT
                signal.pthread_kill(threading.main_thread().ident or 0, number)
                return

    forget_request(run)  # of whoever was asked before
    looking = threading.Thread(target=look, name="requests", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        forget_request(run)


def _handle(number: int, frame: FrameType | None) -> None:
    """In the main thread, as soon as it can be interrupted; only the first signal does anything here."""
    if _Heard.signal is not None:
        return
    _Heard.signal = number
    _leave_dead_terminals()
    if _Heard.drain is None:
        raise Stop
    _Heard.drain()


def _watch(pipe: int) -> None:
    """Ends the process at the second signal; runs in a thread of its own, told by the C handler itself."""
    first: float | None = None
    while True:
        for number in os.read(pipe, 64):
            now = time.monotonic()
            if number not in ECHO:
                continue
            if first is None:
                first = now
                _leave_dead_terminals()
            elif now - first > ECHO[number]:
                _end(number)


def _end(number: int) -> None:
    for descriptor in _Heard.terminals[-1:]:
        with suppress(OSError):
            os.write(descriptor, SHOW_CURSOR)
    with suppress(OSError):
        os.write(2, b"Stopped at once.\n")
    os._exit(128 + number)


def _leave_dead_terminals() -> None:
    """What is still said to a terminal that was closed is said to nobody, and is no error."""
    for descriptor in _Heard.terminals:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
