"""A process on a leash ends with whoever asked for it: always, with all it started, and never before."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from self_pruner.tools.engines.leashed import leashed
from tests.processes import SECONDS, is_gone

ROOT = Path(__file__).parents[3]
SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(1000)",
]
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
    "print(child.pid, flush=True)\ntime.sleep(1000)",
]


def group_of(number: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                state, _, group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == number and state != "Z":
                found.append(int(path.name))
    return found


def killed_parent(command: list[str], reads: str) -> tuple[int, str]:
    """Start `command` from a process that is killed with -9; the command's number, and a line that it said."""
    script = (
        "import subprocess, sys\nfrom self_pruner.tools.engines.leashed import leashed\n"
        f"with leashed({command!r}) as start:\n"
        "    process = subprocess.Popen(**start, stdout=subprocess.PIPE, text=True)\n"
        f"    print(process.pid, {reads}, flush=True)\n    process.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    number, _, said = parent.stdout.readline().partition(" ")
    parent.kill()
    parent.wait()
    return int(number), said.strip()


def test_it_is_the_command_itself_with_its_streams_and_its_status():
    script = "import os, sys\nprint(os.getpid(), sys.stdin.read().upper())\nsys.exit(7)"
    with leashed([sys.executable, "-c", script]) as start:
        process = subprocess.Popen(**start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said, _ = process.communicate("hello", timeout=60)
    assert said == f"{process.pid} HELLO\n" and process.returncode == 7


def test_it_has_no_child_that_it_does_not_know_of():
    script = "import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')"
    with leashed([sys.executable, "-c", script]) as start:
        assert subprocess.run(**start, capture_output=True, text=True, timeout=60).stdout == "none\n"


def test_a_command_that_is_no_program_is_said_and_has_the_shells_status():
    with leashed(["/nowhere/python"]) as start:
        done = subprocess.run(**start, capture_output=True, text=True, timeout=60)
    assert done.returncode == 127 and done.stderr.startswith("'/nowhere/python' cannot be run: No such file")


def test_it_is_gone_after_the_kill_also_where_it_does_not_listen():
    number, said = killed_parent(STUBBORN, "process.stdout.readline()")
    assert said == "ready" and is_gone(number)


def test_it_and_what_it_started_are_gone_after_a_kill_of_whoever_started_it():
    number, said = killed_parent(FAMILY, "process.stdout.readline()")
    assert is_gone(number) and is_gone(int(said))


def test_nothing_of_it_is_left_after_the_block():
    with leashed(FAMILY) as start:
        process = subprocess.Popen(**start, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline()
        process.terminate()
        process.wait()
        assert len(group_of(process.pid)) == 2  # what it started, and the one that waits
    end = time.monotonic() + SECONDS
    while group_of(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert group_of(process.pid) == []


def test_it_outlives_the_thread_that_started_it():
    """The kernel's own signal for a parent's death is sent when the thread ends: a step of a search is one."""
    with leashed(SLEEP) as start:
        started: list[subprocess.Popen[bytes]] = []
        thread = threading.Thread(target=lambda: started.append(subprocess.Popen(**start)))
        thread.start()
        thread.join()
        with pytest.raises(subprocess.TimeoutExpired):
            started[0].wait(0.5)
        started[0].kill()
        started[0].wait()


def test_a_signal_to_our_group_does_not_reach_it():
    """Ctrl-C drains: what the step in hand needs must go on."""
    script = (
        "import os, signal, subprocess, sys\nfrom self_pruner.tools.engines.leashed import leashed\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        f"with leashed({SLEEP!r}) as start:\n"
        "    process = subprocess.Popen(**start)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    try:\n        process.wait(0.5)\n    except subprocess.TimeoutExpired:\n        print('goes on')\n"
        "    process.kill()\n    process.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, start_new_session=True
    )
    assert done.stdout == "goes on\n"


@pytest.mark.parametrize(
    "starts",
    [
        "from self_pruner.tools.export import verify as module\nmodule.RELOAD_SCRIPT = Path({script!r})\n"
        "module.verify(Path({empty!r}), Path('.'))\n",
        "from self_pruner.tools.engines import server as module\n"
        "with module.served(Path({python!r}), 'x', Path({log!r}), dtype='float32', max_model_len=8):\n    pass\n",
    ],
    ids=["verification", "server"],
)
def test_whatever_is_started_dies_with_a_killed_parent(tmp_path, starts):
    told = tmp_path / "number"
    script = tmp_path / "script.py"
    script.write_text(f"import os, time\nopen({str(told)!r}, 'w').write(f'{{os.getpid()}} ')\ntime.sleep(1000)\n")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
    python.chmod(0o755)
    code = "import sys\nfrom pathlib import Path\n" + starts.format(
        script=str(script), python=str(python), log=str(tmp_path / "log"), empty=str(tmp_path / "empty")
    )
    (tmp_path / "empty").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    end = time.monotonic() + 300  # it imports torch first
    while not (told.exists() and told.read_text().endswith(" ")):
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert is_gone(int(told.read_text()))
