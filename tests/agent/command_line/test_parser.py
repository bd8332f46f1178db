"""Command lines that cannot be meant: one sentence that says what could be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from main import main
from self_pruner.agent.command_line.commands import command_line
from self_pruner.agent.prepare.devices import device_of
from self_pruner.agent.settings.panels import PANELS
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.memory.errors import SettingsError
from tests.command_line import given, options


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("exprot", "there is no command 'exprot': did you mean export?"),
        ("reprot", "did you mean report?"),
        ("latency", "did you mean latency-table"),
        ("xyzzy", "there is no command 'xyzzy': commands are run, compare, resume, .*latency-table"),
        ("", "there is no command ''"),
    ],
)
def test_an_unknown_command_is_answered_with_those_like_it(word, sentence):
    with pytest.raises(SettingsError, match=sentence):
        options([word, "--seed", "3"])


@pytest.mark.parametrize("words", [["export", "run", "--output", "x"], ["tasks", "run"]])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_candidate_is_not_the_default_one(words, empty):
    with pytest.raises(SettingsError, match="--candidate: it is empty; name a candidate"):
        options([*words, "--candidate", empty])
    assert options(words)["candidate"] is None


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:" + "9" * 5000])
def test_a_device_that_is_none_is_refused_in_words(device):
    with pytest.raises(SettingsError) as refused:
        make_settings({"device": device})
    assert str(refused.value) == f"--device: it takes auto, cpu, cuda or cuda:N, got {device!r}"


def test_a_gpu_that_is_not_there_is_answered_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="--device cuda:99: no GPU can be used here, only cpu"):
        device_of(Settings(device="cuda:99"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="--device cuda:99: there is none of that number here, only cuda:0, cuda:1"):
        device_of(Settings(device="cuda:99"))
    assert device_of(Settings(device="cuda:1")) == "cuda:1"


HEAVY = {"torch", "transformers", "langgraph", "langchain_core", "numpy", "scipy"}
ANSWERED = """
import json, sys
from self_pruner.main import main
for words in json.loads(sys.argv[1]):
    status = main(words)
    print(json.dumps([status, *sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def test_help_and_bad_arguments_are_answered_before_anything_heavy_is_loaded():
    asked = [[command, "--help"] for command in command_line.commands] + [["--help"], ["--version"], ["--help-all"]]
    wrong = [[command, "--no-such-option"] for command in command_line.commands] + [["exprot"], ["--sparsity", "2"]]
    words = json.dumps([*asked, *wrong])
    done = subprocess.run([sys.executable, "-c", ANSWERED, words], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines() if not line.startswith("error: ")]
    assert [status for status, *_ in lines] == [0] * len(asked) + [2] * len(wrong)
    for line, called in zip(lines, [*asked, *wrong], strict=True):
        assert not HEAVY.intersection(line), called


def test_the_help_of_a_run_fits_two_screens_and_that_of_all_settings_leaves_none_out(capsys):
    assert main(["run", "--help"]) == 0
    brief = capsys.readouterr().out.splitlines()
    assert len(brief) <= 100 and max(map(len, brief)) <= 80
    assert "--help-all" in "\n".join(brief) and "--mutation-step" not in "\n".join(brief)
    assert main(["run", "--help-all"]) == 0
    whole = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in whole


def named(group, *before):
    """Every command of a group and of its groups, by the words that call it."""
    for name, one in group.commands.items():
        yield (*before, name), one
        if isinstance(one, click.Group):
            yield from named(one, *before, name)


@pytest.mark.parametrize(("words", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in named(command_line)])
def test_no_option_and_no_argument_stands_in_a_help_without_a_word(words, command, capsys):
    assert all(param.help for param in command.params if not getattr(param, "hidden", False))
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    arguments = [param.metavar for param in command.params if isinstance(param, click.Argument)]
    assert said.count("Positional arguments:") == bool(arguments)
    for metavar in arguments:
        assert re.search(rf"^  {re.escape(metavar)} +\S", said, re.MULTILINE)


def test_every_setting_is_in_one_panel():
    fields = [name for panel in PANELS for name in panel.model_fields]
    assert sorted(fields) == sorted(Settings.model_fields) and len(set(fields)) == len(fields)
    assert fields == list(Settings.model_fields)  # which is also their order in settings.toml


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sparsty", "0.3"], "there is no option --sparsty: did you mean --sparsity"),
        (["trace", "run", "--stp", "3"], "there is no option --stp: did you mean --step"),
        (["--prompts", "--seed", "3"], "--prompts: its value is missing before --seed"),
        (["--seed"], "option '--seed' requires an argument"),
        (["--fidelity", "128,x"], "--fidelity: '128,x' is not a list of whole numbers"),
        (["trace"], "missing argument 'RUN'"),
        (["trace", "one", "two"], "unexpected extra argument"),
        (["--export=yes"], "'--export' does not take a value"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_answered_with_what_could_be_meant(words, sentence):
    with pytest.raises(SettingsError, match=sentence):
        options(words)


def test_options_may_be_given_in_any_of_their_forms():
    assert given(["--seed=3", "--no-export", "--model", "-x"]) == {"seed": 3, "export": False, "model": "-x"}
    assert options(["export", "--output=x", "run"])["path"] == Path("run")
