"""Prompt files that are wrong, reach for Python or lead outside are refused in a sentence with file and line."""

import pytest

from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.templates import PromptSet
from tests.prompts.overrides import override, refused

# Names and syntax, with file and line


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


# The sandbox


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


# Paths


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


# Sets and folders


def test_an_unknown_set_names_close_matches():
    with pytest.raises(SettingsError, match="there is no prompt set 'defualt'; did you mean 'default'; known: default"):
        PromptSet("defualt")


@pytest.mark.parametrize("name", ["../prompts/default", "/tmp", "", ".", "nothing like it"])
def test_a_set_name_is_one_of_the_known_names_never_a_path(name):
    with pytest.raises(SettingsError, match="; known: default, expert, paper, terse$"):
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
