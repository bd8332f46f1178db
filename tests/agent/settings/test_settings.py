"""Settings that depend on what is known later, and how wrong ones are refused."""

import shlex

import pytest

from self_pruner.agent.run_files.tables import settings_file
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.settings.stated import command_line, is_local, shareable
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
    with pytest.raises(SettingsError, match="--thought-tokens: it takes auto or a whole number from 0 to 4096, got"):
        make_settings(given(["--thought-tokens", word]))


def test_a_command_that_is_copied_says_to_a_shell_what_was_meant(tmp_path):
    folder = tmp_path / "it's & $HOME"
    words = shlex.split(command_line(Settings(prompts=folder, calibration="my text.txt", sparsity=0.3)))
    asked = {"--calibration": "my text.txt", "--sparsity": "0.3", "--prompts": folder.name}
    assert words[:2] == ["python", "main.py"] and dict(zip(words[2::2], words[3::2], strict=True)) == asked


@pytest.mark.parametrize("option", ["minutes", "latency-ms", "speedup", "brain-seconds", "temperature", "brain-share"])
@pytest.mark.parametrize("word", ["inf", "nan"])
def test_a_number_is_finite_so_that_a_run_can_write_down_what_it_is_bound_to(option, word):
    with pytest.raises(SettingsError, match=rf"^--{option}: it takes a finite number .*, got {word}$"):
        make_settings(given([f"--{option}", word]))


@pytest.mark.parametrize("name", ["passages", "papers", "wikitext2", "c4", "C4"])
def test_a_known_text_is_not_a_file_that_is_called_like_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for file in (name, "mine.txt"):
        (tmp_path / file).write_text("something")
    settings = Settings(calibration=name, fitness_text=f"{name},mine.txt", reporting_text=name).anchored()
    assert settings.fitness_text == f"{name},{tmp_path / 'mine.txt'}"
    assert (settings.calibration, settings.reporting_text) == (name, name)


def test_an_alias_is_not_a_folder_that_is_called_like_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("llama-2-7b", "mine"):
        (tmp_path / folder).mkdir()
    assert not is_local(Settings(model="llama-2-7b")) and not is_local(Settings(model="Llama-2-7B"))
    assert shareable(Settings(model="Llama-2-7B"))["model"] == "Llama-2-7B"
    assert is_local(Settings(model="mine")) and is_local(Settings(model=str(tmp_path / "llama-2-7b")))
