"""A run that is paused, told something and stopped from outside, and goes on."""

import json
import signal
import subprocess

import pytest

from self_pruner.agent import session
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.steering import NOTES, REQUEST, Note
from self_pruner.agent.run_files.trace import read_trace
from tests.agent.session.test_resume import SETTINGS
from tests.ended import ENVIRONMENT, command, standing
from tests.stopped import do

NOTE = "keep layer 0 whole"


def line(process, beginning):
    """Waits for a line of its output that begins so."""
    for said in process.stdout:
        if said.startswith(beginning):
            return said
    raise AssertionError(f"it ended with {process.wait()} without {beginning!r}: {process.stderr.read()}")


@pytest.mark.slow
def test_a_run_waits_goes_on_is_stopped_while_it_waits_and_reads_its_note_once(model, cache, tmp_path):
    words = ["--model", model, "--cache", cache, "--runs", tmp_path, *SETTINGS.split(), "--no-recalibrate"]
    process = subprocess.Popen(
        command(words, tmp_path, "prompts_kept generation_over", signal.SIGSTOP),
        **dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True),
    )
    try:
        with standing(process):
            (path,) = tmp_path.glob("tiny-*")
            run = RunDirectory.open(path)
            do("pause", run.path)  # while it is still prepared
        line(process, "Paused")
        assert not run.trace.exists() or not read_trace(run.trace)
        do("pause", run.path, "--off")
        line(process, "Going on")
        with standing(process):
            do("pause", run.path)
        line(process, "generation 0")
        line(process, "Paused")
        before = read_trace(run.trace)
        assert before[-1].kind == "judge"
        do("tell", run.path, NOTE)
        do("stop", run.path)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors
    assert (run.status, read_trace(run.trace)) == ("stopped", before)
    (run.path / REQUEST).write_text('{"request": "stop"}')  # for whoever held it before
    do("resume", run.path)
    assert run.status == "finished" and not (run.path / REQUEST).exists() and (run.path / NOTES).exists()
    told = [record for record in read_trace(run.trace) if record.kind == "think" and record.told]
    assert [record.told for record in told] == [(NOTE,)] and told[0].step > before[-1].step
    assert json.loads((run.path / "result.json").read_text())["told"] == [NOTE]
    assert f"told: {NOTE}" in do("trace", run.path, "--plans").stdout
    assert f"told: {NOTE}" in do("trace", run.path, "--step", told[0].step).stdout
    assert f"1 note of a person: {NOTE}" in do("report", run.path).stdout


def test_a_control_has_read_no_note_wherever_it_comes_from(carried_out, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "read_notes", lambda folder: [Note(text=NOTE, created="2026-01-02")])
    words = [*SETTINGS.split(), "--brain", "uniform", "--arm", "self-init", "--no-recalibrate", "--no-export"]
    assert carried_out(*words)[0] == 0
    run = RunDirectory.latest(tmp_path / "runs")
    asked = [record for record in read_trace(run / "trace.jsonl") if record.kind == "think" and record.replies]
    assert asked and not any(record.told or NOTE in record.prompt for record in asked)
