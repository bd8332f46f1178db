"""Whole runs whose layers stay in their files: the candidates, scores and exported bytes of a run in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.prepare import placement
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from tests.agent.session.test_resume import candidates
from tests.tiny import tiny_folder

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4", "--evaluations", "6"),
    *("--offspring", "3", "--initial", "2", "--population", "2", "--samples", "2", "--sparsity", "0.3"),
    *("--remembered", "0", "--dtype", "float32", "--thought-tokens", "4"),
]


def carried_out(model: Path, root: Path, *words: str) -> Path:
    """A run with a cache of its own."""
    places = ["--model", model, "--runs", root / "runs", "--cache", root / "cache"]
    assert main([str(word) for word in (*places, *SMALL, *words)]) == 0
    return RunDirectory.latest(root / "runs")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model most of which is layers, and more of them than are at work at a time."""
    return tiny_folder(
        tmp_path_factory.mktemp("model") / "tiny", words=4096, num_hidden_layers=8, intermediate_size=512
    )


@pytest.fixture(scope="module")
def resident(model, tmp_path_factory) -> Path:
    return carried_out(model, tmp_path_factory.mktemp("resident"), "--placement", "resident", "--benchmarks", "0")


def test_where_memory_is_short_layers_are_streamed_for_the_same_candidates_and_bytes(
    resident, model, tmp_path, monkeypatch, capfd
):
    need = memory_of(model)
    monkeypatch.setattr(placement, "free_memory", lambda device: need.weights + need.beside - 1)
    run = carried_out(model, tmp_path)
    printed = " ".join("".join(capfd.readouterr()).split())
    assert "the layers of tiny are streamed from its files, for" in printed and "do not fit into" in printed
    assert "latency is not measured" in printed and "Streamed: every layer" in printed
    assert candidates(run) == candidates(resident) and len(candidates(run)) > 6
    for name in ("model.safetensors", "config.json", "tokenizer.json", "modeling_self_pruner.py"):
        assert (run / "model" / name).read_bytes() == (resident / "model" / name).read_bytes()
    found, expected = (json.loads((one / "result.json").read_text()) for one in (run, resident))
    assert found["holdout"] == expected["holdout"] and found["rows"] == expected["rows"]
    assert found["recalibration"] == expected["recalibration"] and found["verified"] is not None
    assert all(name in (run / "report.html").read_text() for name in ("layer passes", "layer bytes read"))
    other = next(one[0] for one in candidates(run) if one[0] not in (found["candidate"], "charged"))
    files = [tmp_path / "streamed.gguf", tmp_path / "resident.gguf"]
    for file in files:
        assert main(["export", str(run), "--candidate", other, "--output", str(file), "--format", "gguf"]) == 0
        printed = " ".join("".join(capfd.readouterr()).split())
        assert ("the layers of tiny are streamed" in printed) == (file == files[0])
        monkeypatch.undo()
    assert files[0].read_bytes() == files[1].read_bytes() and not (run / "refits.safetensors").exists()


def memory_of(model: Path) -> placement.Need:
    return placement.need_of(check_target(Settings(model=str(model), dtype="float32")))


def test_a_run_begun_in_memory_goes_on_streamed_where_there_is_less_of_it(model, tmp_path, monkeypatch, capfd):
    def stopped(*_):
        raise KeyboardInterrupt

    words = ["--model", model, "--runs", tmp_path / "runs", "--cache", tmp_path / "cache", *SMALL, "--arm", "uniform"]
    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", stopped)
        assert main([*map(str, words), "--no-recalibrate", "--no-export"]) == 130
    assert "streamed" not in "".join(capfd.readouterr())
    need = memory_of(model)
    monkeypatch.setattr(placement, "free_memory", lambda device: need.weights + need.beside - 1)
    assert main(["resume", str(RunDirectory.latest(tmp_path / "runs"))]) == 0
    assert "the layers of tiny are streamed from its files" in " ".join("".join(capfd.readouterr()).split())


@pytest.mark.parametrize(
    "settings, free, sentence",
    [
        (
            {"placement": "resident"},
            "less than the weights",
            "--placement resident needs .* are free; --placement stre",
        ),
        ({"placement": "auto"}, "nothing", "even with its layers streamed"),
        ({"placement": "streamed"}, "nothing", "even with its layers streamed"),
        ({"placement": "streamed", "speedup": 1.2}, "much", "a budget in time needs a model in memory"),
    ],
)
def test_a_placement_that_cannot_be_is_one_sentence(model, tmp_path, monkeypatch, settings, free, sentence):
    known = Settings(model=str(model), dtype="float32", **settings)
    need = memory_of(model)
    found = {"less than the weights": need.weights - 1, "nothing": 0, "much": 1 << 40}[free]
    monkeypatch.setattr(placement, "free_memory", lambda device: found)
    target = check_target(known.model_copy(update={"speedup": None}))
    with pytest.raises(SettingsError, match=sentence):
        placement.placed(known, target, View())


def test_a_dry_run_shows_the_bill_and_refuses_by_the_same_figures(model, tmp_path, monkeypatch, capfd):
    need = memory_of(model)
    words = ["--model", str(model), "--runs", str(tmp_path / "runs"), "--dry-run", *SMALL]
    monkeypatch.setattr(placement, "free_memory", lambda device: need.weights + need.beside - 1)
    assert main(words) == 0
    assert "The layers are streamed from their files" in capfd.readouterr().out
    monkeypatch.setattr(placement, "free_memory", lambda device: need.streamed_weights + need.beside - 1)
    assert main(words) == 2
    printed = capfd.readouterr()
    assert "Memory and disk" in printed.out and "even with its layers streamed" in printed.err


def test_what_fits_stays_in_memory(model, monkeypatch):
    need = memory_of(model)
    assert 0 < need.streamed_weights < need.weights
    monkeypatch.setattr(placement, "free_memory", lambda device: need.weights + need.beside)
    settings = Settings(model=str(model), dtype="float32")
    assert placement.placed(settings, check_target(settings), View()).placement == "auto"
