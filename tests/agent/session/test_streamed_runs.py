"""Whole runs whose layers stay in their files: the candidates, scores and exported bytes of a run in memory."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.dry_run.dry_run import dry_run
from self_pruner.agent.prepare import placement
from self_pruner.agent.prepare.bill import needed
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.devices import this_machine
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from tests.agent.session.test_resume import candidates
from tests.command_line import given
from tests.tiny import tiny_folder

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4", "--evaluations", "6"),
    *("--offspring", "3", "--initial", "2", "--population", "2", "--samples", "2", "--sparsity", "0.3"),
    *("--remembered", "0", "--dtype", "float32", "--thought-tokens", "4"),
]


AMOUNTS = given(SMALL)


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


@pytest.fixture
def leave(model, monkeypatch):
    """Leaves a run of the model, with these settings, memory for layers at work and not for all of them, or less."""

    def leave(free: int | None = None, **settings: object) -> None:
        asked = Settings(model=str(model), **(AMOUNTS | settings))
        target, there = check_target(asked), this_machine(asked)
        there = replace(there, memory=replace(there.memory, free=1 << 40))
        need = {
            mode: needed(placement.place(asked.model_copy(update={"placement": mode}), target, there).lines, "memory")
            for mode in ("resident", "streamed")
        }
        assert need["streamed"] < need["resident"]
        less = replace(there, memory=replace(there.memory, free=need["streamed"] if free is None else free))
        monkeypatch.setattr(placement, "this_machine", lambda settings: less)

    return leave


def test_where_memory_is_short_layers_are_streamed_for_the_same_candidates_and_bytes(
    resident, model, tmp_path, leave, monkeypatch, capfd
):
    leave()
    run = carried_out(model, tmp_path)
    printed = " ".join("".join(capfd.readouterr()).split())
    assert "Layers streamed from their files" in printed and "Streamed: every layer" in printed
    assert candidates(run) == candidates(resident) and len(candidates(run)) > 6
    for name in ("model.safetensors", "config.json", "tokenizer.json", "modeling_self_pruner.py"):
        assert (run / "model" / name).read_bytes() == (resident / "model" / name).read_bytes()
    found, expected = (json.loads((one / "result.json").read_text()) for one in (run, resident))
    assert found["holdout"] == expected["holdout"] and found["rows"] == expected["rows"]
    assert found["recalibration"] == expected["recalibration"] and found["verified"] is not None
    assert all(name in (run / "report.html").read_text() for name in ("layer_passes", "layer_bytes_read"))
    other = next(one[0] for one in candidates(run) if one[0] not in (found["candidate"], "charged"))
    files = [tmp_path / "streamed.gguf", tmp_path / "resident.gguf"]
    for file in files:
        assert main(["export", str(run), "--candidate", other, "--output", str(file), "--format", "gguf"]) == 0
        printed = " ".join("".join(capfd.readouterr()).split())
        assert ("Layers streamed from their files" in printed) == (file == files[0])
        monkeypatch.undo()
    assert files[0].read_bytes() == files[1].read_bytes() and not (run / "refits.safetensors").exists()


def test_a_run_begun_in_memory_is_placed_anew_where_there_is_less_of_it(model, tmp_path, monkeypatch, leave, capfd):
    def stopped(*_):
        raise KeyboardInterrupt

    words = ["--model", model, "--runs", tmp_path / "runs", "--cache", tmp_path / "cache", *SMALL, "--arm", "uniform"]
    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", stopped)
        assert main([*map(str, words), "--no-recalibrate", "--no-export"]) == 130
    assert "Layers in memory" in capfd.readouterr().out
    run = str(RunDirectory.latest(tmp_path / "runs"))
    leave(1 << 20)
    assert main(["resume", run]) == 2
    said = capfd.readouterr().err
    assert "tiny needs" in said and "even with its layers streamed" in said and said.count("\n") == 1
    leave(arm="uniform", recalibrate=False, export=False)
    assert main(["resume", run]) == 0
    assert "Layers streamed from their files" in capfd.readouterr().out


def test_a_dry_run_shows_the_bill_and_refuses_by_the_figures_of_a_run(model, tmp_path, leave, capfd):
    words = ["--model", str(model), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), *SMALL]
    leave()
    assert main([*words, "--dry-run"]) == 0
    printed = capfd.readouterr().out
    assert "Weights of 3 layers at a time" in printed and "Layers streamed from their files" in printed
    leave(1 << 20)
    assert main([*words, "--dry-run"]) == 2
    printed = capfd.readouterr()
    assert "Memory and disk" in printed.out and "even with its layers streamed" in printed.err
    assert main(words) == 2
    assert capfd.readouterr().err == printed.err and not list((tmp_path / "runs").glob("tiny-*"))


def test_a_run_goes_through_the_layers_as_often_as_was_said(model, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("self_pruner.agent.dry_run.dry_run.TIMED_FROM", 0)
    monkeypatch.setattr("self_pruner.agent.dry_run.machine_speed.SECONDS", 0.01)
    places = ["--model", str(model), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    words = [*places, *SMALL, "--placement", "streamed", "--arm", "evolution"]
    found = dry_run(make_settings(given(words)), View())
    assert main(words) == 0
    said = capfd.readouterr().out
    made = int(re.search(r"every layer (\d+) times", said)[1])
    foretold = sum(step.passes for step in found.steps)
    assert f"{foretold} passes over the layers; most of it: " in said
    assert 0.6 * foretold <= made <= foretold
