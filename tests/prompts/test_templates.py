from dataclasses import replace
from pathlib import Path

import pytest

from self_pruner.prompts.files import available_sets
from self_pruner.prompts.sample import sample_candidate, sample_variables, samples
from self_pruner.prompts.templates import ENTRIES, PromptSet
from self_pruner.prompts.variables import KINDS, Ask, Hints, History, StretchRow
from tests.prompts.overrides import override, refused

SETS = ("default", "expert", "paper", "terse")
WHOLE = ("default", "expert", "paper")  # those that tell of everything


# What the sets say


def test_the_sets_that_come_with_the_program_pass_their_check():
    assert available_sets() == SETS
    for name in SETS:
        PromptSet(name).check()


def test_each_set_is_made_of_the_entry_files_and_what_they_share():
    for name in SETS:
        folder = Path(__file__).parents[2] / "prompts" / name
        shared = {"stretches.j2"} if name in ("expert", "terse") else set()
        assert {path.name for path in folder.iterdir()} == {*ENTRIES, "set.toml", *shared}


def test_a_set_says_its_actions_and_whether_it_wants_hints():
    default, paper = PromptSet("default"), PromptSet("paper")
    assert default.hints and not paper.hints
    assert default.actions == ("mutation-edits", "crossover-range", "initialise")
    assert paper.actions == ("initialise", "crossover-mask", "mutation-vectors")


@pytest.mark.parametrize("name", WHOLE)
def test_the_system_part_is_the_same_every_turn_and_names_the_four_tools(name):
    prompts = PromptSet(name)
    texts = {prompts.render(sample_variables(kind, prompts.actions)).system for kind in KINDS}
    assert len(texts) == 1
    for tool in ("prune_model", "evaluate", "benchmark_latency", "record_population"):
        assert sum(line.startswith(f"- {tool} ") for line in texts.copy().pop().splitlines()) == 1


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_task_comes_last_and_asks_for_a_thought_only_where_one_is_wanted(name, kind):
    prompts = PromptSet(name)
    variables = sample_variables(kind, prompts.actions)
    turn = prompts.render(variables).turn
    assert name not in WHOLE or turn.index("Used:") < turn.index("Task:")
    assert "reason" in turn.splitlines()[-1].lower()
    silent = prompts.render(replace(variables, ask=replace(variables.ask, thought=False))).turn
    assert silent.splitlines()[-1] in ("Write the call only.", "The call:")
    assert silent.splitlines()[:-1] == turn.splitlines()[:-1]


def test_a_terse_prompt_names_what_is_cheapest_and_what_is_worth_most_first():
    prompts = PromptSet("terse")
    variables = sample_variables("plan", prompts.actions)
    turn = prompts.render(variables).turn
    cheap, dear = (sorted(variables.hints.stretches, key=lambda row: row.cut, reverse=last) for last in (False, True))
    assert f"Take from, the best first: {', '.join(row.name for row in cheap[:4])}." in turn
    assert f"Give to, the best first: {', '.join(row.name for row in dear[:4])}." in turn
    assert len(turn) < len(PromptSet("default").render(variables).turn) / 2


def test_a_terse_prompt_takes_from_nothing_that_is_gone_and_gives_to_nothing_that_is_whole():
    prompts = PromptSet("terse")
    variables = sample_variables("plan", prompts.actions)
    costs = [("mlp 0-4", 1.0, 0.9), ("mlp 5-9", 0.5, 0.5), ("mlp 10-14", 0.2, 0.3), ("attention 0-4", 0.1, 0.0)]
    rows = [StretchRow(name, kept, cut, grow=cut, takes=kept < 1, gives=kept > 0.1) for name, kept, cut in costs]

    def turn(stretches):
        return prompts.render(replace(variables, hints=replace(variables.hints, stretches=tuple(stretches)))).turn

    assert "Take from, the best first: mlp 10-14, mlp 5-9, mlp 0-4." in turn(rows)
    assert "Give to, the best first: mlp 5-9, mlp 10-14, attention 0-4." in turn(rows)
    assert "Take from" not in turn(rows[:1]) and "Give to" not in turn(rows[-1:])  # no shift where one side is empty


def test_only_legal_actions_are_offered():
    prompts = PromptSet("default")
    ask = Ask("vary", actions=("crossover-range",), parents=("c1", "c2"))
    turn = prompts.render(replace(sample_variables("vary", ()), ask=ask)).turn
    assert "- crossover:" in turn
    assert "- mutation:" not in turn


def test_hints_parents_and_survivors_keep_the_order_they_came_in():
    prompts = PromptSet("default")
    variables = sample_variables("vary", prompts.actions)
    ask = replace(variables.ask, parents=("c9", "c2", "c5"))
    turn = prompts.render(replace(variables, ask=ask)).turn
    assert "c9, c2, c5" in turn
    positions = [turn.index(f"layer {place.layer} {place.part} {place.width} (") for place in variables.hints.cut]
    assert positions == sorted(positions)
    survive = prompts.render(sample_variables("survive", ())).turn
    assert "place 1: c1\n- place 2: c2 or c3\n- place 3: c4\n" in survive


def test_a_set_without_hints_shows_no_measured_shortlist():
    prompts = PromptSet("paper")
    shown = prompts.render(sample_variables("vary", prompts.actions))
    bare = replace(sample_variables("vary", prompts.actions), hints=Hints())
    assert prompts.render(bare) == shown
    assert "0.311" not in shown.system


def test_the_paper_set_shows_the_vectors_the_brain_has_to_write():
    prompts = PromptSet("paper")
    candidate = sample_candidate(1, 3)
    variables = replace(sample_variables("vary", prompts.actions, 3), history=History(population=(candidate,)))
    turn = prompts.render(variables).turn
    assert f"attention {str(list(candidate.attention)).replace(' ', '')}\n" in turn
    assert f"mlp {str(list(candidate.mlp)).replace(' ', '')}\n" in turn


@pytest.mark.parametrize("name", WHOLE)
def test_a_candidate_in_two_lists_is_shown_once(name):
    one = sample_candidate(1)
    history = History(population=(one,), best=(one, sample_candidate(2)), recent=(one, sample_candidate(2)))
    turn = PromptSet(name).render(replace(sample_variables("survive", ()), history=history)).turn
    assert turn.count("c1: ") == 1
    assert turn.count("c2: ") == 1


@pytest.mark.parametrize("name", WHOLE)
def test_notes_are_text_not_templates_and_spell_no_control_token(name):
    note = "{{ model.name.__class__ }}\n<|im_end|>\n" + 400 * "x"
    history = History(notes=(note,))
    turn = PromptSet(name).render(replace(sample_variables("survive", ()), history=history)).turn
    assert "- {{ model.name.__class__ }} < |im_end| > xxx" in turn
    assert "<|" not in turn and 250 * "x" not in turn


@pytest.mark.parametrize("name", SETS)
def test_no_prompt_shows_python_or_blank_runs(name):
    prompts = PromptSet(name)
    for variables in samples(prompts.actions):
        messages = prompts.render(variables)
        for text in (messages.system, messages.turn):
            assert "None" not in text and "(" + "'" not in text
            assert "\n\n\n" not in text


# Overrides


def test_an_override_replaces_one_file_and_leaves_the_others(tmp_path):
    variables = sample_variables("latency", ())
    prompts = PromptSet("default", override(tmp_path, ask_latency="Time {{ ask.candidates[0] }}."))
    prompts.check()
    original, changed = PromptSet("default").render(variables), prompts.render(variables)
    assert changed.system == original.system
    assert "Time c1." in changed.turn and "Task:" not in changed.turn


def test_a_whole_set_in_a_folder_stands_for_itself(tmp_path):
    PromptSet("default").copy_to(tmp_path / "kept")  # as a run keeps it; `terse` has a file more
    kept = PromptSet("terse", tmp_path / "kept")
    kept.check()
    assert kept.files == PromptSet("default").files


def test_an_override_may_bring_a_file_that_a_template_includes(tmp_path):
    files = {"ask_survive": '{% for b in ask.brackets %}{% include "place.j2" %}{% endfor %}', "place": "<{{ b[0] }}>"}
    prompts = PromptSet("default", override(tmp_path, **files))
    prompts.check()
    assert "<c1><c2><c4>" in prompts.render(sample_variables("survive", ())).turn


def test_an_override_that_nothing_includes_is_taken_for_misspelt(tmp_path):
    error = refused(override(tmp_path, trun="hello"))
    assert error.file == tmp_path / "trun.j2"
    assert "did you mean 'turn.j2'" in str(error)


def test_a_copy_of_the_files_used_is_the_same_set_again(tmp_path):
    prompts = PromptSet("paper", override(tmp_path / "own", ask_vary="Do {{ ask.count }}."))
    prompts.copy_to(tmp_path / "run" / "prompts")
    again = PromptSet("default", tmp_path / "run" / "prompts")
    again.check()
    assert (again.actions, again.hints, again.description) == (prompts.actions, prompts.hints, prompts.description)
    for kind in KINDS:
        variables = sample_variables(kind, prompts.actions)
        assert again.render(variables) == prompts.render(variables)


def test_files_edited_during_a_run_do_not_change_it(tmp_path):
    folder = override(tmp_path, ask_latency="before")
    prompts = PromptSet("default", folder)
    override(tmp_path, ask_latency="after {{")
    assert "before" in prompts.render(sample_variables("latency", ())).turn
