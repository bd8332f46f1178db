"""The story of a search on the screen: what earlier runs had learnt comes first, and is not needed for the rest."""

import pytest

from main import main
from self_pruner.agent.report.trace_view import found_nothing, overview, stood_in
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import NOTHING_NEW, Act, Judge, Reply, Step, Think
from tests.agent.report.page.made_up import made_up

KNOWN = "known from an earlier run: held: some of mlp 0-1 for mlp 4-5 -0.0200 ± 0.0100 (expected better), in Small"


def test_the_story_begins_with_what_earlier_runs_had_learnt(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    assert main(["trace", str(run.path), "--plans"]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(KNOWN)


def test_the_story_is_told_without_the_runs_own_file_too(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    run.records.unlink()
    assert main(["trace", str(run.path), "--plans"]) == 0
    said = capsys.readouterr()
    assert "there is no memory file" in " ".join((said.out + said.err).split()) and KNOWN not in said.out


@pytest.mark.parametrize("options", [[], ["--plans"], ["--step", "1"], ["--format", "csv"]])
def test_of_a_run_that_is_being_prepared_it_is_said_how_it_goes_on(tmp_path, capsys, options):
    with RunDirectory.create(tmp_path, "begun", {"model": "tiny"}, device="cpu", seed=0) as run:
        assert main(["trace", str(run.path), *options]) == 2
    how = f"it goes on: python main.py watch {run.path}\n"
    assert capsys.readouterr().err == f"error: the search of the run {run.path} has not begun yet; {how}"


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    for there, kept in (("steps 1 to ", None), ("step 1 alone", 1), ("no steps", 0)):
        run.trace.write_text("".join(run.trace.read_text().splitlines(keepends=True)[:kept]))
        assert main(["trace", str(run.path), "--step", "999"]) == 2
        assert f"error: there is no step 999; the trace has {there}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (None, "the brain's plan failed, so it goes by rule"),
        ("prune_model", "candidates are drawn at random in the brain's place"),
        ("record_population", "the best survive, in the place of a choice of the brain's"),
    ],
)
def test_a_turn_that_the_tool_stood_in_for_says_what_it_did(tool, words):
    act = Act(step=1, call=0, tool=tool or "", arguments={}, error="there is no room")
    step = Step(1, Think(step=1, generation=1, prompt="", fallback=True), [act] if tool else [])
    assert stood_in(step) == words
    if tool:
        assert overview(step).endswith("there is no room")  # and not that it made nothing new


PLAN = {"hypotheses": [{"take": "mlp 1", "give": "mlp 0", "amount": "much", "expect": "better"}]}
ASKED = Step(1, Think(step=1, generation=1, prompt="Plan.", replies=(Reply(raw="{}"),), plan=PLAN))
FAILED = Step(1, Think(step=1, generation=1, prompt="Plan.", error="it took too long"))
OTHER = Step(1, Think(step=1, generation=1, prompt="(the tool's operators)"))


def empty(**values):
    return Step(2, Think(**({"step": 2, "generation": 1, "prompt": "", "fallback": True} | values)))


@pytest.mark.parametrize(
    ("step", "before"),
    [
        (empty(prompt=NOTHING_NEW), FAILED),
        (empty(prompt=NOTHING_NEW, fallback=False), OTHER),
        (empty(), OTHER),  # a run of then whose arm asks no brain
        (empty(), ASKED),  # or in which the plan of the generation was stated and followed
    ],
)
def test_a_turn_in_which_nothing_new_was_found_is_no_plan_that_failed(step, before):
    assert stood_in(step, found_nothing([before, step])) == "nothing new was found"


@pytest.mark.parametrize("before", [FAILED, ASKED])
def test_a_plan_that_the_brain_failed_to_state_goes_by_rule(before):
    step = empty(generation=2)
    assert stood_in(step, found_nothing([before, step])) == "the brain's plan failed, so it goes by rule"


def test_a_turn_that_nobody_stood_in_for_says_nothing_of_it():
    assert stood_in(ASKED, found_nothing([ASKED])) == stood_in(OTHER, found_nothing([OTHER])) == ""
    assert found_nothing([empty(), FAILED]) == set()  # the brain was asked, and that later than this turn
    assert overview(empty(prompt=NOTHING_NEW, fallback=False)) == "nothing new was found"


def test_the_story_of_a_run_without_a_brain_says_that_nothing_new_was_found(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    run.trace.write_text("".join(step.think.model_dump_json() + "\n" for step in (OTHER, empty(), empty(step=3))))
    assert main(["trace", str(run.path), "--plans"]) == 0
    said = capsys.readouterr().out
    assert said.count("generation 1: nothing new was found") == 2 and "failed" not in said
    assert "no brain was asked for one" in " ".join(said.split())
    assert main(["trace", str(run.path), "--step", "2"]) == 0
    assert "nothing new was found" in capsys.readouterr().out


def test_a_plan_of_which_no_candidate_was_measured_is_said_to_have_none(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    hypothesis = {"take": "mlp 4", "give": "attention 3", "amount": "little", "expect": "better"}
    lesson = {**hypothesis, "verdict": "held", "change": -0.02, "error": 0.01, "expected": "better"}
    records = []
    for number, lessons in enumerate(([], [lesson]), 1):
        answer = {"generation": number, "survivors": ["c1"], "best": "c1", "note": "", "lessons": lessons}
        records += [
            Think(step=2 * number, generation=number, plan={"hypotheses": [hypothesis]}, prompt=""),
            Act(step=2 * number + 1, call="1", tool="record_population", arguments={}, result=answer),
        ]
    records.append(Judge(step=5, generation=2, spent={"brain_tokens": 3}))
    run.trace.write_text("".join(record.model_dump_json() + "\n" for record in records))
    assert main(["trace", str(run.path), "--plans"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    stated = "takes little of mlp 4 for attention 3 (expects better)"
    first = lines.index(f"generation 1: {stated}")
    assert lines[first + 1 : first + 3] == ["no new candidate of it was measured", f"generation 2: {stated}"]
    assert lines[first + 3].startswith("held: little of mlp 4")
    assert main(["trace", str(run.path), "--step", "5"]) == 0
    assert "judge: brain tokens 3; goes on" in capsys.readouterr().out  # there is no best yet
