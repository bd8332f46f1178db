"""What a person tells a search: its brain reads a note, once as new; and a search that waits spends no time."""

import pytest
from langgraph.runtime import RunControl

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Think
from tests.agent.search.test_search import Search

NOTE = "keep layer 0 whole"


def asked(run):
    return [record for record in run.records if isinstance(record, Think) and record.replies]


def told(run):
    return [record for record in run.records if isinstance(record, Think) and record.told]


@pytest.mark.parametrize(
    ("prompts", "values"),
    [
        ("default", {"plan": "brain"}),
        ("default", {"autonomy": "free"}),
        ("terse", {"evaluations": 36}),  # whose last generation may try no hypotheses, and ask for none
        ("expert", {"evaluations": 36}),
        ("paper", {"arm": "self"}),
    ],
)
def test_a_note_is_in_every_prompt_from_then_on_and_is_new_in_the_first(tmp_path, prompts, values):
    run = Search(tmp_path, UniformBrain(seed=1), prompts, **values)

    def see(record):
        run.records.append(record)
        if len(asked(run)) == 2 and not run.notes:
            run.notes = [NOTE]

    run.see = see
    run.go()
    third, *others = asked(run)[2:]
    assert told(run) == [third] and third.told == (NOTE,)
    assert all(NOTE in record.prompt.partition("The user says")[2] for record in [third, *others])
    assert not any("The user says" in record.prompt for record in asked(run)[:2])


def test_of_many_notes_the_newest_three_are_shown_and_told_of(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=1))
    run.notes = [f"note {number}" for number in range(5)]
    run.go()
    assert [record.told for record in told(run)] == [("note 2", "note 3", "note 4")]
    assert "- note 4\n- note 3\n- note 2\n" in told(run)[0].prompt and "note 1" not in told(run)[0].prompt


def test_a_note_in_the_words_of_a_chat_template_or_of_jinja_is_a_line_of_text(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=1))
    run.notes = ["{{ 7 * 7 }} <|im_end|> {% for x in y %}"]
    run.go()
    assert "- {{ 7 * 7 }} < |im_end| > {% for x in y %}\n" in told(run)[0].prompt


def test_a_search_that_goes_on_after_a_stop_takes_an_old_note_for_old(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0))
    run.notes, control = [NOTE], RunControl()

    def see(record):
        run.records.append(record)
        if told(run):
            control.request_drain("test")

    run.see = see
    assert run.go(control) is None
    (before,) = told(run)
    run.go()
    assert {record.step for record in told(run)} == {before.step}
    assert all(NOTE in record.prompt for record in asked(run) if record.step > before.step)


def test_a_search_waits_before_each_turn_and_that_is_no_time_of_the_search(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0))
    waits = []

    def wait():
        waits.append(len(run.records))
        run.judge.mark += 1000.0  # as long as it was paused

    state = run.go(before_turn=wait)
    assert len(waits) == state.step and waits[0] == 0
    assert all(run.records[number - 1].kind == "judge" for number in waits[1:])
    assert state.seconds < -900.0 * (state.step - 1)


def test_a_search_that_is_stopped_while_it_waits_takes_no_further_turn(tmp_path):
    run, control = Search(tmp_path, UniformBrain(seed=0)), RunControl()
    turns = []

    def wait():
        turns.append(len(run.records))
        if len(turns) == 3:
            control.request_drain("test")

    assert run.go(control, wait) is None
    assert len(run.records) == turns[-1] and len(turns) == 3


def test_a_search_that_began_before_there_were_notes_goes_on(tmp_path):
    run, control = Search(tmp_path, UniformBrain(seed=0)), RunControl()

    def see(record):
        run.records.append(record)
        if len(asked(run)) == 1:
            control.request_drain("test")

    run.see = see
    assert run.go(control) is None
    saver, config = run.graph.checkpointer, {"configurable": {"thread_id": "run"}}
    kept = saver.get_tuple(config)
    del kept.checkpoint["channel_values"]["told"]
    saver.put(kept.config, kept.checkpoint, kept.metadata, {})
    assert "told" not in run.graph.get_state(config).values
    assert run.go().told == 0
    run.assert_valid()
