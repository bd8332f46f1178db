"""Processes that answer in lines: asked, read, at fault, and gone with whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.child import child
from tests.processes import is_gone

ECHO = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"


def test_it_answers_line_by_line_and_ends_with_the_block(tmp_path):
    with child([sys.executable, "-c", ECHO], tmp_path, {}) as process:
        assert process.ask("one", 60) == "ONE\n"
        assert process.ask("two", 60) == "TWO\n"
        assert process.process.poll() is None
    assert process.process.returncode == -signal.SIGTERM


def test_its_variables_are_those_given_beside_ours(tmp_path):
    script = "import os\nprint(os.environ['MINE'], os.environ['HF_MODULES_CACHE'], os.getcwd())"
    with child([sys.executable, "-c", script], tmp_path, {"MINE": "yes"}) as process:
        assert list(process.lines()) == [f"yes {tmp_path} {tmp_path}\n"]
        assert process.fault() == "it said nothing"
        assert process.process.returncode == 0


def test_what_it_died_of_is_the_last_error_it_named(tmp_path):
    with child([sys.executable, "-c", "raise ValueError('too wide')"], tmp_path, {}) as process:
        assert list(process.lines()) == []
        assert process.fault() == "ValueError: too wide"
        assert process.ask("one", 60) == ""


def test_one_that_gives_no_answer_in_time_is_ended(tmp_path):
    asleep = "import sys, subprocess\nsubprocess.run(['sleep', '1000'])"  # a child of its own holds the pipe too
    with (
        child([sys.executable, "-c", asleep], tmp_path, {}) as process,
        pytest.raises(EngineError, match="no answer within 0 s"),
    ):
        process.ask("one", 0.3)
    assert process.process.returncode == -signal.SIGKILL


def test_it_is_gone_when_whoever_started_it_is_killed(tmp_path):
    parent = (
        "import sys\nfrom pathlib import Path\nfrom self_pruner.tools.engines.child import child\n"
        f"asleep, here = [sys.executable, '-c', 'import time; time.sleep(1000)'], Path({str(tmp_path)!r})\n"
        "with child(asleep, here, {}) as process:\n"
        "    print(process.process.pid, flush=True)\n    process.process.wait()\n"
    )
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.kill()
    started.wait()
    assert is_gone(pid)
