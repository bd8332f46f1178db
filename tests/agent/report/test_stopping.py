"""Signals: the first one drains or interrupts, the second one ends the process, whatever it is busy with."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# A call that lets other threads run, never looks at signals and takes hours: as a long tensor operation does.
BUSY = "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
START = "import time\nfrom self_pruner.agent.report.stopping import Stop, draining, exit_status, listen\nlisten()\n"
UNTIL_STOPPED = (
    "try:\n    say('ready')\n    for _ in range(10000): time.sleep(0.1)\n"
    "except KeyboardInterrupt as error:\n    say(type(error).__name__)\n    raise SystemExit(exit_status())\n"
)
DRAINS = (
    "asked = []\n"
    "try:\n"
    "    with draining(lambda: asked.append(1)):\n"
    "        say('ready')\n"
    "        while not asked: time.sleep(0.01)\n"
    "        time.sleep(0.3)\n"
    "        say('step done')\n"
    "    say('something else begins')\n"
    "except Stop:\n"
    "    say('stopped')\n"
    "    raise SystemExit(exit_status())\n"
)
SAY = "def say(text): print(text, flush=True)\n"
# Signals are told apart by when they are heard, which on a busy machine is not when they are sent. So the process is
# told the seconds at which it hears each, and says that it does.
AT = (
    "import os, types\nfrom self_pruner.agent.report import stopping\n"
    "moments, heard = {moments!r}, []\n"
    "def now():\n    heard.append(1)\n    os.write(1, b'heard\\n')\n    return moments[len(heard) - 1]\n"
    "stopping.time = types.SimpleNamespace(monotonic=now)\n"
)
APART = AT.format(moments=(0.0, 1.2))  # longer than an echo
AT_ONCE = AT.format(moments=(0.0, 0.05))  # as `timeout` does, and a terminal that closes


def started(script: str, **options: object) -> subprocess.Popen[str]:
    """A process that runs `script` and has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + SAY + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,  # type: ignore[call-overload]
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def send(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a process that says when it hears one; returns once it did."""
    process.send_signal(number)
    wait_for(process, "heard")


def wait_for(process: subprocess.Popen[str], *words: str) -> None:
    """Until it has said all of them."""
    said = ""
    while not all(word in said for word in words):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"it ended after {said!r}"
        said += line


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status and what else it said; a process that hangs is an error."""
    try:
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said, errors


def rest_of(terminal: int) -> bytes:
    """What is left to read of a terminal that nobody holds any more."""
    read = b""
    with suppress(OSError):  # its end
        while more := os.read(terminal, 1000):
            read += more
    return read


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_interrupts_what_does_not_end_by_itself(number):
    process = started(UNTIL_STOPPED)
    process.send_signal(number)
    assert ended(process) == (128 + number, "Stop\n", "")


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_lets_the_step_in_hand_end_and_nothing_begin_after_it(number):
    process = started(DRAINS)
    process.send_signal(number)
    assert ended(process) == (128 + number, "step done\nstopped\n", "")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
def test_the_second_signal_of_any_kind_ends_a_process_in_the_middle_of_a_long_operation(first, second):
    process = started(APART + "with draining(lambda: None):\n    say('ready')\n    exec(" + repr(BUSY) + ")\n")
    send(process, first)
    send(process, second)
    status, said, errors = ended(process)
    assert (status, said) == (128 + second, "") and "Stopped at once" in errors


def test_the_second_signal_does_not_wait_for_threads_that_go_on(tmp_path):
    asks = "import threading\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
    process = started(APART + asks + UNTIL_STOPPED)
    process.send_signal(signal.SIGTERM)
    wait_for(process, "heard", "Stop")  # by two threads, in any order; and now it waits for the thread
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_sent_twice_at_once_is_one(number):
    process = started(AT_ONCE + DRAINS.replace("not asked", "not asked or len(heard) < 2"))
    send(process, number)
    send(process, number)
    assert ended(process) == (128 + number, "step done\nstopped\n", "")


def test_a_signal_that_it_was_started_to_ignore_stays_ignored():
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = started("say('ready')\ntime.sleep(1)\nsay('done')\n", preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "done\n", "")


def test_the_cursor_of_a_terminal_is_shown_again_by_the_end_at_once():
    main, terminal = pty.openpty()
    script = START + APART + "with draining(lambda: None):\n    os.write(1, b'ready')\n    time.sleep(1000)\n"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=terminal, stderr=terminal, cwd=ROOT)
    os.close(terminal)
    assert os.read(main, 100) == b"ready"
    process.send_signal(signal.SIGINT)
    assert os.read(main, 100).strip() == b"heard"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert b"\x1b[?25h" in rest_of(main)
    os.close(main)


def test_a_terminal_that_is_closed_stops_the_run_in_order_and_writing_to_it_is_no_error(tmp_path):
    main, terminal = pty.openpty()
    script = (
        f"import pathlib\nlog = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "told = []\ndef tell():\n    print('Stopping', flush=True)\n    told.append(1)\n"
        "try:\n    with draining(tell):\n        print('ready', flush=True)\n        while not told: time.sleep(0.01)\n"
        "        print('step done', flush=True)\n"
        "except Stop:\n    log.write_text(f'stopped {exit_status()}')\n"
    )
    take_terminal = "import fcntl, os, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", take_terminal + START + script],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(terminal)
    assert os.read(main, 100).strip() == b"ready"
    os.close(main)  # the window is closed
    assert process.wait(60) == 0
    assert (tmp_path / "log").read_text() == "stopped 129"
