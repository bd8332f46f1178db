"""kill -9 at any moment, then resume: the same candidates as a run that was never killed."""

import signal
import sys
from pathlib import Path

import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import read_trace
from tests.ended import ended
from tests.stopped import do

ROOT = Path(__file__).parents[3]
SETTINGS = (
    "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
    "--calibration-length 64 --calibration-sequences 4 --evaluations 16 --offspring 6 --initial 4 --population 3 "
    "--samples 4 --thought-tokens 4 --benchmarks 0 --sparsity 0.3 --remembered 0"
)


def command(*words):
    return [sys.executable, str(ROOT / "main.py"), *map(str, words)]


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


@pytest.mark.slow
def test_a_run_killed_again_and_again_resumes_to_the_same_candidates(tmp_path, options, whole):
    words = ["--runs", tmp_path, *options]
    for place in ("lines_in_trace(1)", "lines_in_trace(8)", "sensitivities_in_memory(2)", "export_begun"):
        status, errors = ended(words, tmp_path, place)
        assert status == -signal.SIGKILL, errors
        run = RunDirectory.latest(tmp_path)
        words = ["resume", run]
    do("resume", run)
    assert candidates(run) == candidates(whole)
    assert (run / "model" / "config.json").exists()
    assert (run / "result.json").exists()


@pytest.mark.slow
def test_a_signal_drains_says_how_to_go_on_and_loses_nothing(tmp_path, options, whole):
    words = ["--runs", tmp_path, *options]
    for lines, sent in ((5, signal.SIGINT), (9, signal.SIGTERM), (13, signal.SIGHUP)):
        status, errors = ended(words, tmp_path, f"lines_in_trace({lines})", sent)
        assert status == 128 + sent
        assert "Traceback" not in errors
        run = RunDirectory.latest(tmp_path)
        assert RunDirectory.open(run).status == "stopped"
        words = ["resume", run]
    do("resume", run)
    assert candidates(run) == candidates(whole)


@pytest.mark.slow
def test_a_finished_run_is_not_resumed_but_can_be_reported_traced_and_exported(whole, tmp_path):
    again = do("resume", whole, check=False)
    assert again.returncode == 2
    assert "is finished" in again.stderr and "Traceback" not in again.stderr
    shown = do("trace", whole).stdout
    assert "prune_model" in shown and "end: 16 evaluations are used up" in shown
    asked = next(line for line in read_trace(whole / "trace.jsonl") if line.kind == "think" and line.replies)
    step = do("trace", whole, "--step", asked.step).stdout
    assert (
        "--- prompt" in step
        and "You are a language model that prunes itself" in step
        and "Plan this generation." in step
    )
    assert "found" in do("report", whole).stdout
    assert '"trace":[{"kind":"think"' in (whole / "report.html").read_text()
    folder = tmp_path / "other"
    do("export", whole, "--candidate", "c1", "--output", folder)
    assert (folder / "model.safetensors").exists()
    refused = do("export", whole, "--candidate", "c1", "--output", folder, check=False)
    assert refused.returncode == 2 and str(folder) in refused.stderr and "Traceback" not in refused.stderr
