"""kill -9 at any moment, then resume: the same candidates as a run that was never killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import read_trace

ROOT = Path(__file__).parents[3]
SETTINGS = (
    "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
    "--calibration-length 64 --calibration-sequences 4 --evaluations 16 --offspring 6 --initial 4 --population 3 "
    "--samples 4 --thought-tokens 4 --benchmarks 0 --sparsity 0.3 --remembered 0"
)


def command(*words):
    return [sys.executable, str(ROOT / "main.py"), *map(str, words)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny tensors: threads would only get in each other's way


def do(*words, check=True):
    """One command line in a process of its own."""
    return subprocess.run(command(*words), capture_output=True, text=True, check=check, timeout=600, env=ENVIRONMENT)


def candidates(run):
    """What every step made and measured, without times."""
    made = []
    for record in read_trace(run / "trace.jsonl"):
        if record.kind == "act" and record.tool == "prune_model":
            made += [(row["id"], row["attention"], row["mlp"]) for row in record.result["candidates"]]
        elif record.kind == "act" and record.tool == "evaluate":
            made += [(row["id"], row.get("fitness")) for row in record.result["results"]]
            made.append(("charged", record.result["charged_tokens"]))
        elif record.kind == "judge":
            made.append((record.step, record.best, record.spent["evaluations"], record.spent["tokens"]))
    return made


@pytest.fixture(scope="module")
def options(model, tmp_path_factory):
    return ["--model", model, "--cache", tmp_path_factory.mktemp("cache"), *SETTINGS.split()]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """The run that nobody disturbs."""
    runs = tmp_path_factory.mktemp("whole")
    do("--runs", runs, *options)
    return RunDirectory.latest(runs)


def killed(runs, options, ready, sent=signal.SIGKILL):
    """A run killed as soon as `ready` says so; returns its directory and exit status."""
    process = subprocess.Popen(
        command("--runs", runs, *options), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        found = list(runs.glob("tiny-*"))
        if found and ready(found[0]):
            process.send_signal(sent)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=300)
    return RunDirectory.latest(runs), process.returncode, errors.decode()


def lines_in_trace(count):
    def ready(run):
        trace = run / "trace.jsonl"
        return trace.exists() and trace.read_bytes().count(b"\n") >= count

    return ready


def slopes_in_memory(count):
    """Between two of the four sequences on which slopes are measured: in the middle of a step."""

    def ready(run):
        try:
            with closing(sqlite3.connect(f"file:{run.parent / 'memory.sqlite'}?mode=ro", uri=True)) as memory:
                return memory.execute("SELECT count(*) FROM slopes").fetchone()[0] >= count
        except sqlite3.OperationalError:  # not made yet
            return False

    return ready


def exported(run):
    return (run / "model.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "ready",
    [*map(lines_in_trace, (1, 17)), slopes_in_memory(2), exported],
    ids=["1", "17", "slopes", "export"],
)
def test_a_killed_run_resumes_to_the_same_candidates(tmp_path, options, whole, ready):
    run, status, _ = killed(tmp_path, options, ready)
    assert status == -signal.SIGKILL
    do("resume", run)
    assert candidates(run) == candidates(whole)
    assert (run / "model" / "config.json").exists()
    assert (run / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_says_how_to_go_on_and_loses_nothing(tmp_path, options, whole, sent):
    run, status, errors = killed(tmp_path, options, lines_in_trace(5), sent)
    assert status == 128 + sent
    assert "Traceback" not in errors
    assert RunDirectory.open(run).status == "stopped"
    do("resume", run)
    assert candidates(run) == candidates(whole)


@pytest.mark.slow
def test_a_finished_run_is_not_resumed_but_can_be_reported_traced_and_exported(whole, tmp_path):
    again = do("resume", whole, check=False)
    assert again.returncode == 2
    assert "is finished" in again.stderr and "Traceback" not in again.stderr
    shown = do("trace", whole).stdout
    assert "prune_model" in shown and "end: 16 evaluations are used up" in shown
    step = do("trace", whole, "--step", 2).stdout
    assert "--- prompt" in step and "You are tiny" in step and "prune_model" in step
    assert "found" in do("report", whole).stdout
    assert "<svg" in (whole / "report.html").read_text()
    folder = tmp_path / "other"
    do("export", whole, "--candidate", "c1", "--output", folder)
    assert (folder / "model.safetensors").exists()
    refused = do("export", whole, "--candidate", "c1", "--output", folder, check=False)
    assert refused.returncode == 2 and str(folder) in refused.stderr and "Traceback" not in refused.stderr
