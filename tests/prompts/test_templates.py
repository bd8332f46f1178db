from dataclasses import replace
from pathlib import Path

import pytest

from self_pruner.memory.errors import SelfPrunerError, SettingsError
from self_pruner.prompts.files import PromptError, available_sets
from self_pruner.prompts.sample import sample_candidate, sample_variables, samples
from self_pruner.prompts.templates import ENTRIES, PromptSet
from self_pruner.prompts.variables import KINDS, Ask, Hints, History

SETS = ("default", "expert", "paper", "terse")
WHOLE = ("default", "expert", "paper")  # those that tell of everything


def override(folder: Path, **files: str) -> Path:
    """A folder of overrides; `turn="..."` writes turn.j2."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.j2").write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path) -> PromptError:
    with pytest.raises(PromptError) as caught:
        PromptSet("default", folder).check()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SelfPrunerError)
    return caught.value


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


# Bad input: names and syntax, with file and line


@pytest.mark.parametrize(
    ("file", "text", "line", "said"),
    [
        ("turn", "one\n{{ generaton }}", 2, "did you mean 'generation'"),
        ("turn", "{% if generation > 9999 %}\n\n{{ nonsense }}{% endif %}", 3, "'nonsense' is not a variable"),
        ("ask_survive", "a\nb\nc {{ ask.knid }}", 3, "Ask has no field 'knid'; did you mean 'kind'"),
        ("turn", "{% for c in best %}\n{{ c.fitnes|decimals }}\n{% endfor %}", 2, "did you mean 'fitness'"),
        ("system", "{{ model.name }}\n{{ generation }}", 2, "'generation' changes during a run"),
        ("system", "{{ model.layers }}", 1, "did you mean 'n_layers'"),
    ],
)
def test_an_undefined_variable_is_named_with_file_and_line(tmp_path, file, text, line, said):
    error = refused(override(tmp_path, **{file: text}))
    assert error.file == tmp_path / f"{file}.j2"
    assert error.line == line
    assert f"{file}.j2, line {line}: " in str(error)
    assert said in str(error)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("fine\n{% if generation %}", 2, "syntax error"),
        ("fine\n\n{{ generation", 3, "syntax error"),
        ("{{ generation|nofilter }}", 1, "nofilter"),
        ("\n{% nonsense %}", 2, "unknown tag 'nonsense'"),
    ],
)
def test_a_syntax_error_is_named_with_file_and_line(tmp_path, text, line, said):
    error = refused(override(tmp_path, ask_initialise=text))
    assert (error.file, error.line) == (tmp_path / "ask_initialise.j2", line)
    assert said in str(error)


@pytest.mark.parametrize("text", ["a\n{{ generation + 'x' }}", "a\n{{ 1 / 0 }}", "a\n{{ ask.kind|signed }}"])
def test_an_expression_that_fails_is_named_with_file_and_line(tmp_path, text):
    error = refused(override(tmp_path, ask_initialise=text))
    assert (error.file, error.line) == (tmp_path / "ask_initialise.j2", 2)


def test_templates_that_include_one_another_without_end_are_refused(tmp_path):
    error = refused(override(tmp_path, ask_vary='{% include "turn.j2" %}'))
    assert "include one another without end" in str(error)


# Bad input: the sandbox


@pytest.mark.parametrize(
    "text",
    [
        "\n{{ ''.__class__.__mro__ }}",
        "\n{{ model.__class__ }}",
        "\n{% if generation > 9999 %}{{ model.__init__.__globals__ }}{% endif %}",
        "\n{{ model['__class__'] }}",
        "\n{{ model|attr('__class__') }}",
        "\n{{ best|map(attribute='__class__')|list }}",
        "\n{{ '{0.__class__}'.format(model) }}",
        "\n{{ range.__globals__ }}",
        "\n{{ self.__init__ }}",
        "\n{{ lipsum }}",
        "\n{{ cycler.__init__ }}",
        "\n{% set x = [] %}{{ x.append(1) }}",
    ],
)
def test_a_template_that_reaches_for_python_is_refused_with_file_and_line(tmp_path, text):
    error = refused(override(tmp_path, turn=text))
    assert (error.file, error.line) == (tmp_path / "turn.j2", 2)
    assert "may not reach into Python" in str(error) or "is not a variable" in str(error)


# Bad input: paths


@pytest.mark.parametrize(
    "text",
    [
        '\n{% include "../paper/turn.j2" %}',
        '\n{% include "/etc/passwd" %}',
        '\n{% include "..\\\\turn.j2" %}',
        '\n{% include "../set.toml" ignore missing %}',
        '\n{% include ["../a.j2", "turn.j2"] %}',
        '\n{% import "../x.j2" as x %}',
        '\n{% extends "../x.j2" %}',
        '\n{% include ".." ~ "/turn.j2" %}',
        '\n{% include ".." ~ "/turn.j2" ignore missing %}',
    ],
)
def test_a_path_outside_the_folder_is_refused_with_file_and_line(tmp_path, text):
    error = refused(override(tmp_path, ask_vary=text))
    assert (error.file, error.line) == (tmp_path / "ask_vary.j2", 2)
    assert "leads outside the prompt folder" in str(error)


@pytest.mark.parametrize("target", ["ask_vari.j2", "set.toml"])
def test_a_file_that_is_no_template_of_the_set_cannot_be_included(tmp_path, target):
    error = refused(override(tmp_path, ask_survive=f'\n{{% include "{target}" %}}'))
    assert error.line == 2
    assert f"there is no file {target!r} in this prompt set" in str(error)


def test_a_link_that_leads_outside_is_refused(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = override(tmp_path / "own")
    (folder / "turn.j2").symlink_to(secret)
    error = refused(folder)
    assert error.file == folder / "turn.j2"
    assert "link that leads outside" in str(error)


def test_a_link_within_the_folder_is_fine(tmp_path):
    folder = override(tmp_path / "own", ask_latency="linked")
    (folder / "ask_survive.j2").symlink_to(folder / "ask_latency.j2")
    (tmp_path / "link").symlink_to(folder)
    PromptSet("default", tmp_path / "link").check()


def test_a_dangling_link_is_an_error_not_the_default_file(tmp_path):
    (tmp_path / "turn.j2").symlink_to(tmp_path / "gone.j2")
    assert "is not a file" in str(refused(tmp_path))


# Bad input: sets and folders


def test_an_unknown_set_names_close_matches():
    with pytest.raises(SettingsError, match="there is no prompt set 'defualt'; did you mean 'default'"):
        PromptSet("defualt")


@pytest.mark.parametrize("name", ["../prompts/default", "/tmp", "", ".", "nothing like it"])
def test_a_set_name_is_one_of_the_known_names_never_a_path(name):
    with pytest.raises(SettingsError, match="Known: default, expert, paper, terse"):
        PromptSet(name)


def test_a_missing_override_folder_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="'.*nowhere' does not exist"):
        PromptSet("default", tmp_path / "nowhere")


def test_an_override_that_is_a_file_or_holds_no_prompt_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SettingsError, match="is not a folder"):
        PromptSet("default", tmp_path / "notes.txt")
    with pytest.raises(SettingsError, match=r"has none; it may hold .*turn\.j2"):
        PromptSet("default", tmp_path)


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "turn.j2").write_bytes(b"ok \xff")
    assert "not UTF-8 text (byte 3)" in str(refused(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('description = "x"\nactions = [', "line 2: syntax error"),
        ('description = "x"\nhints = true', "'actions' is missing"),
        ('description = "x"\nhints = true\nactions = ["mutate"]', "unknown action 'mutate'; allowed: initialise"),
        ('description = "x"\nhints = 1\nactions = ["initialise"]', "'hints' must be true or false"),
        ('description = 1\nhints = true\nactions = ["initialise"]', "'description' must be text"),
        ('description = "x"\nhints = true\nactions = ["initialise", "initialise"]', "without repeats"),
        ('description = "x"\nhints = true\nactions = ["initialise"]\nhint = 1', "unknown key 'hint'"),
    ],
)
def test_settings_of_a_set_are_checked(tmp_path, text, said):
    (tmp_path / "set.toml").write_text(text)
    error = refused(tmp_path)
    assert error.file == tmp_path / "set.toml"
    assert said in str(error)
