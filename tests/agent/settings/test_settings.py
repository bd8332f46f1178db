"""Settings that depend on what is known later, and how wrong ones are refused."""

import shlex

import pytest

from self_pruner.agent.run_files.tables import settings_file
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.settings.stated import command_line
from self_pruner.memory.errors import SettingsError
from tests.command_line import given


@pytest.mark.parametrize(("parameters", "tokens"), [(134_515_008, 0), (999_999_999, 0), (1_000_000_000, 32)])
def test_only_brains_of_a_billion_parameters_think_before_a_call_unless_told_otherwise(parameters, tokens):
    assert Settings().thought_limit(parameters) == tokens
    assert Settings(thought_tokens=32).thought_limit(parameters) == 32
    assert Settings(thought_tokens=0).thought_limit(parameters) == 0


def test_a_brain_that_is_served_elsewhere_may_be_of_any_size_and_thinks():
    assert Settings(brain_url="http://localhost:8000/v1").thought_limit(134_515_008) == 32


@pytest.mark.parametrize(("word", "value"), [("auto", "auto"), ("32", 32), ("0", 0)])
def test_tokens_of_thought_are_a_number_or_auto(word, value):
    settings = make_settings(given(["--thought-tokens", word]))
    assert settings.thought_tokens == value
    assert f"thought_tokens = {value!r}".replace("'", '"') in settings_file(settings.to_toml())


@pytest.mark.parametrize("word", ["many", "-1", "4097", ""])
def test_what_is_neither_is_refused_in_words(word):
    with pytest.raises(SettingsError, match="--thought-tokens: it takes 0 to 4096 tokens of thought .* or auto"):
        make_settings(given(["--thought-tokens", word]))


def test_a_command_that_is_copied_says_to_a_shell_what_was_meant(tmp_path):
    folder = tmp_path / "it's & $HOME"
    words = shlex.split(command_line(Settings(prompts=folder, calibration="my text.txt", sparsity=0.3)))
    asked = {"--calibration": "my text.txt", "--sparsity": "0.3", "--prompts": folder.name}
    assert words[:2] == ["python", "main.py"] and dict(zip(words[2::2], words[3::2], strict=True)) == asked


@pytest.mark.parametrize("option", ["minutes", "latency-ms", "speedup", "brain-seconds", "temperature", "brain-share"])
@pytest.mark.parametrize("word", ["inf", "nan"])
def test_a_number_is_finite_so_that_a_run_can_write_down_what_it_is_bound_to(option, word):
    with pytest.raises(SettingsError, match=rf"^--{option}: .*finite number, got {word}$"):
        make_settings(given([f"--{option}", word]))
