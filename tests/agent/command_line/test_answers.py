"""What a command says where little is left to do or nobody listens, and how it names places."""

from __future__ import annotations

import subprocess
import sys

import pytest

from main import main
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Think, TraceWriter
from self_pruner.agent.settings.settings import Settings

STEPS = 20_000  # so many that what is said of them is more than a pipe takes while nobody reads
PIPED = 128 + 13  # what a shell calls the end by SIGPIPE


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A finished run without a result, which no command has to load anything heavy for."""
    with RunDirectory.create(
        tmp_path_factory.mktemp("runs"), "tiny", Settings().to_toml(), device="cpu", seed=0
    ) as run:
        with TraceWriter(run.trace) as trace:
            trace.write(Think(step=0, generation=0, prompt="(one legal call, nothing to decide)"))
        line = run.trace.read_text()
        assert '"step":0,' in line
        run.trace.write_text("".join(line.replace('"step":0,', f'"step":{step},') for step in range(STEPS)))
        run.set_status("finished", "64 evaluations are used up")
        return run.path


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_has_seen_enough_is_no_fault(path, lines):
    words = [sys.executable, "-m", "self_pruner.main", "trace", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == PIPED


def test_a_pipe_that_nobody_reads_from_the_beginning_is_no_fault_either():
    code = (
        "import os, sys\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 1)\n"
        "os.close(reader)\n"
        "from self_pruner.main import main\n"
        "sys.exit(main(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (PIPED, "")


def test_going_on_with_a_finished_run_says_that_there_is_nothing_to_do(path, capfd):
    assert main(["resume", str(path)]) == 2
    assert capfd.readouterr().err == (
        f"error: the run {path} is finished, so there is nothing to do: start a new one, or look at it with report or "
        "trace\n"
    )
