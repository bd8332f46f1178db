"""Spans of records that a small run does not have: failures, free text, older traces, secrets."""

import json
from datetime import datetime

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from self_pruner.agent.report.telemetry.spans import RunSpans
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Judge, Think

BEGAN = datetime(2026, 11, 23, 9, 5, 7)
NOTE = "these survive because the late layers matter"
SURVIVE = Act(
    step=1, call=0, tool="record_population", arguments={"survivors": ["c1"], "note": NOTE}, result={"note": NOTE}
)


@pytest.fixture
def run(tmp_path):
    settings = {"model": "tiny", "calibration": "https://me:password@example.com/text"}
    with RunDirectory.create(tmp_path, "tiny", settings, device="cpu", seed=0, now=BEGAN) as run:
        yield run


def spans(run, *records, content=False):
    kept = InMemorySpanExporter()
    made = RunSpans(run, SimpleSpanProcessor(kept), content=content)
    for record in records:
        made.see(record)
    made.end()
    return {span.name: span for span in kept.get_finished_spans()}


def judged(step=1, **more):
    return Judge(step=step, generation=0, spent={"tokens": 10}, best="c1", fitness=0.5, **more)


def test_a_failed_call_and_a_failed_brain_are_errors(run):
    brain = Think(step=1, generation=0, prompt="?", error="'prune' is not legal now")
    tool = Act(step=1, call=0, tool="evaluate", arguments={}, error="there is no candidate c9")
    found = spans(run, brain, tool, judged(), content=True)
    assert found["evaluate"].status.description == "there is no candidate c9"
    assert found["chat"].status.description == "'prune' is not legal now"
    assert not found["chat"].status.is_ok and not found["evaluate"].status.is_ok


@pytest.mark.parametrize("content", [False, True])
def test_what_a_brain_wrote_in_words_is_sent_only_with_the_content(run, content):
    brain = Think(step=1, generation=0, prompt="?", error=f"{NOTE!r} is too long", plan={"note": NOTE})
    found = spans(run, brain, SURVIVE, judged(), content=content)
    assert (NOTE in str([span.to_json() for span in found.values()])) is content
    assert json.loads(found["record_population"].attributes["input.value"])["survivors"] == ["c1"]


def test_a_step_that_is_run_again_is_told_as_it_was_judged(run):
    before = Act(step=1, call=1, tool="evaluate", arguments={"candidates": ["c7"]})
    again = Act(step=1, call=1, tool="evaluate", arguments={"candidates": ["c8"]})
    found = spans(run, before, again, judged())
    assert json.loads(found["evaluate"].attributes["input.value"]) == {"candidates": ["c8"]}


def test_records_of_older_runs_follow_one_another_from_the_runs_beginning(run):
    brain = Think(step=1, generation=0, prompt="?", error="too slow", seconds=2.0)
    tool = Act(step=1, call=0, tool="evaluate", arguments={}, seconds=3.0)
    found = spans(run, brain, tool, judged())
    began = round(BEGAN.timestamp() * 1e9)
    seconds = {name: ((one.start_time - began) / 1e9, (one.end_time - began) / 1e9) for name, one in found.items()}
    assert seconds == {"chat": (0, 2), "evaluate": (2, 5), "turn": (0, 5), "run": (0, 5)}


def test_no_secret_of_the_settings_is_in_a_span(run, monkeypatch):
    run.set_status("stopped", "ValueError: https://me:password@example.com/text is gone")
    found = spans(run, judged())
    text = str([span.to_json() for span in found.values()])
    assert "password" not in text and "[redacted]@example.com" in text
    assert found["run"].status.description.startswith("ValueError: ")
