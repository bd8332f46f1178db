"""`trace --format`: the same spans as a collector gets, the records as they are kept, a table with a row a step."""

import csv
import io
import json
import shutil

import pytest

from main import main
from self_pruner.agent.run_files.trace import Act, Judge, TraceWriter, by_step, read_trace


@pytest.fixture
def written(told, capfd):
    """Writes the trace of a run in a form; returns the text."""

    def written(form, path=told[0], *words):
        capfd.readouterr()
        assert main(["trace", str(path), "--format", form, *words]) == 0
        return capfd.readouterr().out

    return written


@pytest.fixture
def copy(told, tmp_path):
    return shutil.copytree(told[0], tmp_path / "copy")


def test_otlp_has_the_spans_that_the_collector_was_sent(told, written):
    request = json.loads(written("otlp"))
    spans = [one for group in request["resourceSpans"] for scope in group["scopeSpans"] for one in scope["spans"]]
    sent = {span.id: span for span in told[1].spans}
    assert {span["spanId"] for span in spans} == sent.keys()
    for span in spans:
        live = sent[span["spanId"]]
        assert (span["traceId"], span.get("parentSpanId", ""), span["name"]) == (live.trace, live.parent, live.name)
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        assert isinstance(span["kind"], int)
        said = {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
        if live.name != "run":  # which says of itself the same by hand and by file, but for when it ended
            assert said.keys() == live.attributes.keys()
        if live.kind in ("LLM", "TOOL"):
            assert (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])) == (live.start, live.end)


def test_jsonl_has_the_records_as_they_are_kept(told, written):
    kept = [json.loads(line) for line in (told[0] / "trace.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in written("jsonl").splitlines()] == kept


def test_csv_has_a_row_a_step(told, written):
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    steps = by_step(read_trace(told[0] / "trace.jsonl"))
    assert [int(row["step"]) for row in rows] == list(steps)
    for row, step in zip(rows, steps.values(), strict=True):
        assert int(row["output_tokens"]) == step.think.output_tokens
        assert int(row["calls"]) == len(step.acts)
        assert float(row["spent_tokens"]) == step.judge.spent["tokens"]
    assert rows[-1]["stop"] == "10 evaluations are used up" and float(rows[-1]["fitness"]) > 0


@pytest.mark.parametrize("form", ["otlp", "jsonl", "csv"])
def test_half_a_line_is_left_out_and_a_damaged_one_is_said(copy, written, capfd, form):
    trace = copy / "trace.jsonl"
    trace.write_text(trace.read_text() + '{"kind":"dream","step":99}\n{"kind":"think","st')
    assert main(["trace", str(copy), "--format", form]) == 0
    output = capfd.readouterr()
    assert output.err == "warning: 1 line of the trace is damaged and was left out\n"
    if form != "otlp":  # whose service is another instance each time
        assert output.out == written(form)


@pytest.mark.parametrize("form", ["otlp", "jsonl", "csv"])
def test_a_run_in_the_middle_of_a_step_has_what_there_is(copy, written, form):
    (copy / "trace.jsonl").unlink()
    (copy / "result.json").unlink()
    with TraceWriter(copy / "trace.jsonl") as trace:
        trace.write(Act(step=1, call=0, tool="evaluate", arguments={}, seconds=1.0))
    assert "evaluate" in written(form, copy)


@pytest.mark.parametrize("forged", [{"at": 1e300}, {"seconds": -1e12}, {"tokens": 10**30}])
def test_forged_numbers_are_left_out_or_answered_in_a_sentence(copy, capfd, forged):
    line = {"kind": "act", "step": 99, "call": 0, "tool": "evaluate", "arguments": {}, **forged}
    with open(copy / "trace.jsonl", "a") as trace:
        trace.write(json.dumps(line) + "\n")
    status = main(["trace", str(copy), "--format", "otlp"])
    output = capfd.readouterr()
    if "tokens" in forged:
        assert status == 0 and not output.err and str(10**30) not in output.out
    else:
        assert status == 2 and "holds what no span can" in output.err and output.err.count("\n") == 1


def test_a_cell_is_no_formula_and_no_control_character(copy, written):
    with TraceWriter(copy / "trace.jsonl") as trace:
        trace.write(Judge(step=99, generation=0, spent={}, best="=HYPERLINK(1)", stop="\x1b[2J"))
    last = list(csv.DictReader(io.StringIO(written("csv", copy))))[-1]
    assert last["best"] == "'=HYPERLINK(1)" and "\x1b" not in last["stop"]


def test_a_file_is_written_whole_and_none_is_overwritten(told, written, tmp_path, capfd):
    file = tmp_path / "trace.csv"
    assert written("csv", told[0], "--output", str(file)) == ""
    assert file.read_text() == written("csv")
    assert main(["trace", str(told[0]), "--format", "jsonl", "--output", str(file)]) == 2
    assert "is there already" in capfd.readouterr().err
    assert file.read_text() == written("csv")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "xml"], "--format: got 'xml': give --format otlp, jsonl or csv"),
        (["--output", "x"], "--output is for --format"),
        (["--format", "csv", "--step", "1"], "without --step and --plans"),
        (["--format", "csv", "--plans"], "without --step and --plans"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(told, capfd, words, said):
    assert main(["trace", str(told[0]), *words]) == 2
    output = capfd.readouterr()
    assert said in output.err and output.err.count("\n") == 1 and not output.out


def test_there_is_no_trace_of_no_run(tmp_path, capfd):
    assert main(["trace", str(tmp_path), "--format", "otlp"]) == 2
    assert "there is no run" in capfd.readouterr().err
