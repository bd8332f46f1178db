"""Notes and requests to a run: what is taken, what is refused in a sentence, and who is asked."""

import json
import threading

import pytest

from main import main
from self_pruner.agent.run_files import steering
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.run_lock import RunLock, is_held
from self_pruner.agent.run_files.steering import LONGEST, MOST, read_notes, requested, tell, wait_while_paused
from self_pruner.agent.run_files.trace import Judge, TraceWriter
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.prompts.templates import PromptSet


@pytest.fixture
def run(tmp_path):
    """A run that is held, as by the process that carries it out."""
    with RunDirectory.create(tmp_path, "tiny", Settings(model="tiny").to_toml(), device="cpu", seed=0) as run:
        PromptSet("default").copy_to(run.prompts)
        yield run


def said(capfd, *words):
    """The status of a command, and what it says."""
    status = main([str(word) for word in words])
    output = capfd.readouterr()
    assert output.err.count("\n") == (status != 0) and "Traceback" not in output.err
    return status, output.out + output.err


def test_notes_are_kept_in_order_each_in_one_line_and_without_keys(run, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-very-secret-value")
    assert said(capfd, "tell", run.path, "keep layer 0\n  whole")[0] == 0
    assert said(capfd, "tell", run.path, "the token is a-very-secret-value")[0] == 0
    assert [note.text for note in read_notes(run.path)] == ["keep layer 0 whole", "the token is [redacted]"]


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("x" * (LONGEST + 1), str(LONGEST)),
        ("a\x1b[31m", "printed"),
        ("\u202e", "printed"),
    ],
)
def test_a_note_that_is_none_is_refused(run, capfd, note, words):
    status, told = said(capfd, "tell", run.path, note)
    assert status == 2 and words in told and not (run.path / steering.NOTES).exists()


def test_who_would_not_read_a_note_is_told_none(run, capfd, tmp_path):
    assert "there is no run" in said(capfd, "tell", tmp_path / "none", "x")[1]
    (tmp_path / "plan.json").write_text("{}")
    assert "is a comparison" in said(capfd, "tell", tmp_path, "x")[1]
    inner = tmp_path / "runs" / "hybrid-30-seed0"
    with RunDirectory.create(inner, "tiny", {"model": "tiny"}, device="cpu", seed=0) as arm:
        assert "favour" in said(capfd, "tell", arm.path, "x")[1]
    turn = run.prompts / "turn.j2"
    turn.write_text(turn.read_text().replace("user_notes", "notes"))
    assert "show no notes" in said(capfd, "tell", run.path, "x")[1]
    settings = run.path / "settings.toml"
    for arm, plan in (("evolution", "brain"), ("hybrid", "rule")):
        settings.write_text(f'model = "tiny"\narm = "{arm}"\nplan = "{plan}"\n')
        assert "asks no brain" in said(capfd, "tell", run.path, "x")[1]
    for control in ("uniform", "first"):
        settings.write_text(f'model = "tiny"\nbrain = "{control}"\n')
        assert f"has the control {control} for a brain, which reads nothing" in said(capfd, "tell", run.path, "x")[1]
    run.set_status("finished")
    assert "is finished" in said(capfd, "tell", run.path, "x")[1]
    assert not (run.path / steering.NOTES).exists()


@pytest.mark.parametrize("known", ["stop", "result"])
def test_a_run_whose_search_is_over_is_told_nothing(run, capfd, known):
    with TraceWriter(run.trace) as trace:
        trace.write(Judge(step=1, generation=0, spent={}))
        assert said(capfd, "tell", run.path, "one")[0] == 0
        trace.write(
            Judge(step=2, generation=1, spent={}, stop="8 evaluations are used up" if known == "stop" else None)
        )
    if known == "result":
        (run.path / "result.json").write_text("{}")  # it chose, and recalibrates
    status, told = said(capfd, "tell", run.path, "two")
    assert status == 2 and "is over: nobody would read the note" in told and len(read_notes(run.path)) == 1


def test_a_run_takes_so_many_notes_and_no_more(run, monkeypatch):
    monkeypatch.setattr(steering, "MOST", 2)
    tell(run.path, "one")
    tell(run.path, "two")
    with pytest.raises(RunDirectoryError, match="2 notes"):
        tell(run.path, "three")
    assert len(read_notes(run.path)) == 2 < MOST


def test_several_at_a_time_lose_no_note_and_a_torn_line_costs_itself_only(run):
    (run.path / steering.NOTES).write_bytes(b'{"text": "torn')
    telling = [threading.Thread(target=tell, args=(run.path, f"note {number}")) for number in range(12)]
    for one in telling:
        one.start()
    for one in telling:
        one.join()
    assert {note.text for note in read_notes(run.path)} == {f"note {number}" for number in range(12)}


def test_a_link_in_the_place_of_the_notes_is_not_written_through(run, tmp_path, capfd):
    (tmp_path / "other").write_text("theirs")
    (run.path / steering.NOTES).symlink_to(tmp_path / "other")
    status, told = said(capfd, "tell", run.path, "x")
    assert status == 2 and "symbolic link" in told and (tmp_path / "other").read_text() == "theirs"


def test_a_run_is_paused_goes_on_and_is_stopped(run, capfd):
    assert requested(run.path) is None
    assert "was not asked to pause" in said(capfd, "pause", run.path, "--off")[1]
    status, told = said(capfd, "pause", run.path)
    assert (status, requested(run.path)) == (0, "pause") and "--off" in told
    assert said(capfd, "pause", run.path, "--off")[0] == 0 and requested(run.path) is None
    said(capfd, "pause", run.path)
    for words in (["stop"], ["stop"], ["pause"]):  # a run that is to stop does not pause instead
        status, told = said(capfd, *words, run.path)
        assert (status, requested(run.path)) == (0, "stop") and "resume" in told


@pytest.mark.parametrize("words", [["stop"], ["pause"], ["pause", "--off"]])
def test_a_run_that_nobody_carries_out_is_asked_nothing(run, capfd, words):
    command, *options = words
    run.close()  # as after kill -9: it says running, and the number of its process may be another one's by now
    status, told = said(capfd, command, run.path, *options)
    assert status == 2 and "is not running" in told and f"resume {run.path}" in told
    run.set_status("finished")
    assert "is finished" in said(capfd, command, run.path, *options)[1]
    assert requested(run.path) is None


def test_a_comparison_asks_those_of_its_runs_that_go_on(tmp_path, capfd):
    (tmp_path / "plan.json").write_text("{}")
    settings = Settings(model="tiny").to_toml()
    runs = [
        RunDirectory.create(tmp_path / "runs" / name, "tiny", settings, device="cpu", seed=0) for name in ("a", "b")
    ]
    runs[1].close()
    assert f"resume {tmp_path}\n" in said(capfd, "stop", tmp_path)[1]
    assert [requested(run.path) for run in runs] == ["stop", None]
    runs[0].close()
    assert "no run of the comparison" in said(capfd, "stop", tmp_path)[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"request": "explode"}', b"\xff", b"[" * 100_000])
def test_a_damaged_request_is_none(run, content):
    (run.path / steering.REQUEST).write_bytes(content)
    assert requested(run.path) is None


def test_waiting_ends_when_the_run_may_go_on_or_is_over(run, monkeypatch):
    monkeypatch.setattr(steering, "SECONDS", 0.001)
    assert wait_while_paused(run.path, lambda: False, View()) == 0.0
    steering.request(run.path, "pause")
    asked = iter([False, False, True, True])
    assert wait_while_paused(run.path, lambda: next(asked), View()) > 0.0
    assert requested(run.path) == "pause"
    looks = iter([False] * 3)

    def over():
        if next(looks, None) is None and requested(run.path):
            steering.request(run.path, "go on")
        return False

    assert wait_while_paused(run.path, over, View()) > 0.0


def test_asked_to_stop_while_it_waits_a_run_begins_no_turn_before_it_hears_of_it(run, monkeypatch, capfd):
    monkeypatch.setattr(steering, "SECONDS", 0.001)
    steering.request(run.path, "pause")
    heard = iter([False] * 5)

    def over():
        steering.request(run.path, "stop")
        return next(heard, True)

    assert wait_while_paused(run.path, over, View()) > 0.0
    assert next(heard, None) is None  # it looked until it was over
    assert "Going on" not in capfd.readouterr().out


def test_whether_a_run_is_held_is_found_out_without_holding_it(tmp_path):
    assert not is_held(tmp_path)
    lock = RunLock(tmp_path)
    assert is_held(tmp_path)
    lock.close()
    assert not is_held(tmp_path) and not is_held(tmp_path / "none")
    RunLock(tmp_path).close()
    assert json.loads((tmp_path / ".lock").read_text()) > 0
