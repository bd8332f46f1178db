"""The trace holds every step once, whatever killed the run, and no secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from self_pruner.agent.report.trace_view import overview
from self_pruner.agent.run_files.trace import Act, Judge, Reply, Step, Think, TraceWriter, by_step, read_trace
from self_pruner.memory.errors import RunDirectoryError

ROOT = Path(__file__).parents[3]
THINK = Think(
    step=1,
    generation=0,
    prompt="Which layer?\nAnswer with a call.",
    replies=(Reply(raw='late\n{"name":"evaluate"}', thought="late", call={"name": "evaluate", "args": {"n": [1, 2]}}),),
    input_tokens=800,
    output_tokens=20,
    decode_steps=4,
    seconds=1.5,
)
ACT = Act(
    step=1, call=0, tool="evaluate", arguments={"candidates": ["c1"]}, result={"c1": 0.5}, tokens=1024, seconds=2.0
)
JUDGE = Judge(step=1, generation=0, spent={"evaluations": 1}, best="c1", fitness=0.5)


def write(path, *records):
    with TraceWriter(path) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.jsonl"


def test_records_are_read_as_they_were_written_one_a_line(path):
    write(path, THINK, ACT, JUDGE)
    assert read_trace(path) == [THINK, ACT, JUDGE]
    lines = path.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["think", "act", "judge"]


def test_a_step_that_is_run_again_supersedes_its_earlier_records(path):
    again = ACT.model_copy(update={"result": {"c1": 0.4}})
    second = ACT.model_copy(update={"call": 1})
    write(path, THINK, ACT, second)
    write(path, again, JUDGE, THINK.model_copy(update={"step": 2}))
    assert read_trace(path) == [THINK, again, second, JUDGE, THINK.model_copy(update={"step": 2})]


def test_records_are_grouped_by_step_in_order(path):
    seed = ACT.model_copy(update={"step": 0})
    later = ACT.model_copy(update={"call": 1})
    steps = by_step([JUDGE, later, ACT, THINK, seed])
    assert list(steps) == [0, 1]
    assert steps[0] == Step(0, acts=[seed])
    assert steps[1] == Step(1, THINK, [ACT, later], JUDGE)


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_torn_last_line_is_not_read_and_is_cut_off_before_the_next(path, keep):
    write(path, THINK, ACT)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:keep])
    assert read_trace(path) == [THINK]
    write(path, ACT, JUDGE)
    assert read_trace(path) == [THINK, ACT, JUDGE]
    assert path.read_bytes().startswith(first + second)


def test_a_torn_first_line_longer_than_a_block_is_cut_off(path):
    path.write_bytes(b'{"kind":"think","prompt":"' + b"x" * 200_000)
    assert read_trace(path) == []
    write(path, ACT)
    assert read_trace(path) == [ACT]


@pytest.mark.parametrize("torn", [65_535, 65_536, 65_537, 131_072])
def test_a_torn_line_as_long_as_the_blocks_that_are_searched_takes_no_whole_line_with_it(path, torn):
    write(path, THINK, ACT)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * torn)
    write(path, JUDGE)
    assert path.read_bytes().startswith(whole)
    assert read_trace(path) == [THINK, ACT, JUDGE]


def test_a_trace_of_one_torn_byte_begins_anew(path):
    path.write_bytes(b"{")
    write(path, ACT)
    assert read_trace(path) == [ACT]


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"dance","step":1}',
        b"not json",
        b'{"kind":"think","step":"x","generation":0,"prompt":""}',
        b"",
        b"{}",
        b"[]",
        b"\xff\x00\xfe",
        b"[" * 100_000,
        b'{"kind":"judge","step":1,"generation":0,"spent":{"tokens":NaN}}',
        b'{"kind":"judge","step":' + b"9" * 5000 + b',"generation":0,"spent":{}}',
    ],
)
def test_a_damaged_line_costs_what_it_told_and_is_counted(path, line):
    write(path, THINK)
    with open(path, "ab") as file:
        file.write(line + b"\n")
    write(path, ACT)
    found = read_trace(path)
    assert found == [THINK, ACT]
    assert found.gaps() == ["1 line of the trace is damaged and was left out"]
    with open(path, "ab") as file:
        file.write(line + b"\n")
    assert read_trace(path).gaps() == ["2 lines of the trace are damaged and were left out"]


def test_a_whole_trace_has_no_gaps_and_a_torn_end_is_none(path):
    write(path, THINK, ACT)
    path.write_bytes(path.read_bytes() + b'{"kind":')
    assert read_trace(path).gaps() == []


def test_access_tokens_never_reach_the_file(path):
    secret = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
    write(
        path,
        Think(step=1, generation=0, prompt=f"key {secret}", replies=(Reply(raw=secret, call={secret: [secret]}),)),
        Act(step=1, call=0, tool="evaluate", arguments={"note": secret}, error=f"401 for {secret}"),
    )
    assert secret not in path.read_text()
    think, act = read_trace(path)
    assert think.prompt == "key [redacted]"
    assert act.arguments == {"note": "[redacted]"}


def test_what_json_or_unicode_cannot_hold_is_written_as_near_as_may_be(path):
    act = Act(step=1, call=0, tool="evaluate", arguments={"widths": (1, 2)}, result=[float("nan"), "half \ud83d pair"])
    write(path, act, THINK.model_copy(update={"prompt": "é\u2028\x00"}))
    think, found = sorted(read_trace(path), key=lambda record: record.kind, reverse=True)
    assert found.arguments == {"widths": [1, 2]}
    assert found.result == [None, "half ? pair"]
    assert think.prompt == "é\u2028\x00"


def test_a_full_disk_leaves_the_trace_as_it_was(path, monkeypatch):
    write_some, room = os.write, [10, 0]

    def fill(descriptor, data):
        size = room.pop(0)
        if size == 0:
            raise OSError(28, "No space left on device")
        return write_some(descriptor, data[:size])

    with TraceWriter(path) as writer:
        writer.write(THINK)
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", fill)
        with pytest.raises(RunDirectoryError, match=r"cannot write the trace .*trace\.jsonl: No space left on device"):
            writer.write(ACT)
        monkeypatch.undo()
        assert room == []
        assert path.read_bytes() == before
        writer.write(JUDGE)
    assert read_trace(path) == [THINK, JUDGE]


def test_a_disk_that_fails_altogether_is_said_and_the_torn_line_is_cut_later(path, monkeypatch):
    write_some = os.write

    def fail(*_):
        raise OSError(5, "Input/output error")

    with TraceWriter(path) as writer:
        writer.write(THINK)
        monkeypatch.setattr(os, "write", lambda descriptor, data: write_some(descriptor, data[:10]))
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(RunDirectoryError, match=r"cannot write the trace .*trace\.jsonl: Input/output error"):
            writer.write(ACT)
        monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-3])
    write(path, JUDGE)
    assert read_trace(path) == [THINK, JUDGE]


def test_a_record_is_forced_to_the_disk_before_it_counts(path, monkeypatch):
    forced, force = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (force(descriptor), forced.append(path.read_bytes()))[0])
    with TraceWriter(path) as writer:
        for count, record in enumerate((THINK, ACT), start=1):
            writer.write(record)
            assert len(forced) == count and forced[-1] == path.read_bytes()


def test_a_closed_trace_takes_no_more(path):
    with TraceWriter(path) as writer:
        writer.write(THINK)
    with pytest.raises(RunDirectoryError, match="cannot write the trace"):
        writer.write(ACT)
    assert read_trace(path) == [THINK]


def test_a_record_is_not_changed_after_it_was_made():
    with pytest.raises(ValueError, match="frozen"):
        JUDGE.stop = "patience"


def test_what_a_record_does_not_say_counts_as_nothing():
    think = Think(step=1, generation=0, prompt="")
    assert think.input_tokens == think.output_tokens == think.cached_tokens == 0
    assert think.decode_steps == think.forced_tokens == think.seconds == 0
    assert not think.fallback and think.error is None and think.replies == ()
    act = Act(step=1, call=0, tool="evaluate", arguments={})
    assert act.repair == act.tokens == act.seconds == 0 and act.result is act.error is None


def test_no_trace_and_no_permission_are_said(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot read the trace .*: No such file"):
        read_trace(tmp_path / "trace.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot open the trace .*: Not a directory"):
        TraceWriter(tmp_path / "file" / "trace.jsonl")


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Judge(step=1, generation=0, spent={}, stopped="patience")


def test_what_was_written_survives_a_kill(path):
    code = (
        "import sys; from pathlib import Path; from self_pruner.agent.run_files.trace import Act, TraceWriter\n"
        "writer = TraceWriter(Path(sys.argv[1]))\n"
        "for step in range(10**6):\n"
        "    writer.write(Act(step=step, call=0, tool='evaluate', arguments={'text': 'x' * 5000}))\n"
        "    print(step, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(30):
        told = int(writer.stdout.readline())
    writer.kill()
    writer.communicate()
    steps = [record.step for record in read_trace(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) > told


def test_a_line_of_a_step_says_how_many_were_measured_on_what_and_whether_sensitivities_were():
    def line(count: int, sensitivities: bool) -> str:
        rows = [{"id": f"c{number}", "status": "ok", "fitness": 0.5 + number} for number in range(1, count + 1)]
        arguments = {"candidates": [row["id"] for row in rows], "fidelity": 4096, "sensitivities": sensitivities}
        act = Act(step=1, call=0, tool="evaluate", arguments=arguments, result={"fidelity": 4096, "results": rows})
        return overview(by_step([act])[1])

    assert line(2, sensitivities=False) == "evaluate  2 candidates on 4096 tokens, best c1 1.5000"
    assert line(1, sensitivities=True) == "evaluate  1 candidate on 4096 tokens and sensitivities, best c1 1.5000"
