"""The command `prompts`: what whoever writes prompts asks for."""

import re

import pytest

from main import main
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest


def said(capsys, *words):
    status = main(["prompts", *map(str, words)])
    found = capsys.readouterr()
    return status, found.out, found.err


def test_the_sets_are_listed_with_what_tells_them_apart(capsys):
    status, out, _ = said(capsys)
    assert status == 0 and said(capsys, "list")[1] == out
    for name in ("default", "paper"):
        prompts = PromptSet(name)
        assert f"{name} ({digest(prompts)}): {prompts.description}" in out


@pytest.mark.parametrize("kind", ["plan", "vary"])
def test_the_prompt_of_a_made_up_turn_is_shown(capsys, kind):
    status, out, _ = said(capsys, "show", "default", "--kind", kind)
    assert status == 0 and out.startswith("You are smollm2-135m")
    assert {"plan": "Task: plan this generation", "vary": "Task: make a better candidate"}[kind] in out


def test_a_set_is_copied_changed_checked_and_compared(capsys, tmp_path):
    mine = tmp_path / "mine"
    assert said(capsys, "new", mine, "--from", "paper")[0] == 0
    assert PromptSet("default", mine).files == PromptSet("paper").files
    assert "have the same files" in said(capsys, "diff", "paper", mine)[1]
    turn = mine / "turn.j2"
    turn.write_text(turn.read_text() + "Think of layer {{ model.n_layers - 1 }}.\n")
    status, out, _ = said(capsys, "diff", "paper", mine)
    assert status == 0 and "+Think of layer {{ model.n_layers - 1 }}." in out and "-Think" not in out
    status, out, _ = said(capsys, "check", mine)
    assert status == 0 and digest(PromptSet("default", mine)) in out != digest(PromptSet("paper"))
    assert "Think of layer 29." in said(capsys, "show", mine)[1]


def test_all_variables_are_named_with_a_value(capsys):
    status, out, _ = said(capsys, "variables")
    assert status == 0
    named = dict(re.findall(r"^([\w.\[\]]+): (.*)$", out, re.MULTILINE))
    assert named["model.n_layers"] == "int, such as 30"
    assert named["hints.stretches[0].name"] == "str, such as attention 0-4"
    assert named["lessons"] == "list of 3"


def test_what_is_wrong_is_said_in_one_line(capsys, tmp_path):
    (tmp_path / "turn.j2").write_text("{{ nonsense }}")
    for words, sentence in (
        (("check", tmp_path), "'nonsense' is not a variable; did you mean 'notes'?"),
        (("show", "defualt"), "did you mean 'default'"),
        (("show", "default", "--kind", "dance"), "'dance' is not one of 'initialise', 'plan'"),
        (("dance",), "there is no command 'dance'"),
        (("show",), "missing argument 'SET|DIR' (python main.py prompts show --help"),
        (("new", tmp_path), "is there already"),
    ):
        status, out, error = said(capsys, *words)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert sentence in error, error
