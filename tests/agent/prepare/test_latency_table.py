"""The commands that time shapes, on tiny ones: what they print, keep and refuse."""

from __future__ import annotations

import pytest

from main import main
from self_pruner.agent.prepare import latency_table as latency
from self_pruner.agent.prepare.latency_table import PAPER
from self_pruner.tools.models.outline import skeleton
from self_pruner.tools.models.published import PUBLISHED
from self_pruner.tools.profiles.budget import parse_params
from tests.tiny import tiny_folder

SMALL = ["--latency-prompt", "8", "--latency-decode", "2", "--latency-repeats", "1", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("model") / "tiny"))


def test_the_table_is_measured_once_and_checked_every_time(model, tmp_path, capfd, monkeypatch):
    words = ["latency-table", "--model", model, "--sparsity", "0.3", "--cache", str(tmp_path), *SMALL]
    assert main(words) == 0
    printed = capfd.readouterr().out
    assert "predicted speed-up" in printed and "Mean error" in printed and "unequal 3" in printed
    (kept,) = (tmp_path / "latency").glob("*.json")
    monkeypatch.setattr(latency, "measure_table", None)  # it would fail if it were measured again
    assert main(words) == 0
    monkeypatch.undo()
    kept.write_text("{")
    assert main(words) == 0
    assert "is damaged" in capfd.readouterr().out


def test_shapes_are_timed_in_full_and_in_part(model, capfd):
    assert main(["bench-shapes", "--model", model, "--params", "3.2M", *SMALL]) == 0
    assert "3 of 3 layers" in capfd.readouterr().out
    assert main(["bench-shapes", "--model", model, "--params", "3.2M,3.25M", "--layers", "2", *SMALL]) == 0
    printed = capfd.readouterr().out
    assert "2 of 3 layers" in printed and "the rest is extrapolated" in printed
    assert printed.count("uniform") >= 2 and "of what its parameters promise" in " ".join(printed.split())


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--params", "49X"], "'49X' is no parameter count"),
        (["--params", "49B"], "cannot be reached: this model can keep"),
        (["--params", "3.2M", "--layers", "9"], "--layers takes 2 to 3 of this model, got 9"),
        (["--params", "3.2M", "--latency-prompt", "100000"], "must fit the model's context"),
        ([], "--params"),
    ],
)
def test_mistakes_are_one_sentence(model, capfd, words, sentence):
    assert main(["bench-shapes", "--model", model, *SMALL, *words]) == 2
    errors = capfd.readouterr().err
    assert sentence in errors and errors.count("\n") == 1


def test_what_does_not_fit_is_said_before_it_is_made(model, capfd, monkeypatch):
    monkeypatch.setattr(latency, "MEMORY", 0.0)
    assert main(["bench-shapes", "--model", model, "--params", "3.2M", *SMALL]) == 2
    assert "too much here" in capfd.readouterr().err


@pytest.mark.parametrize("name, params", [("llama-2-7b", 6.74e9), ("llama-2-70b", 68.98e9), ("llama-3-8b", 8.03e9)])
def test_published_shapes_have_the_parameters_they_are_known_for(name, params):
    model = skeleton(PUBLISHED[name], name)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(params, rel=1e-3)


def test_the_papers_figures_are_of_shapes_that_are_known():
    assert all(name in PUBLISHED and parse_params(count) for name, count in PAPER)
