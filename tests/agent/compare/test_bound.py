"""A table holds one model: whatever lies in its place later, or elsewhere under its name, is refused."""

import json
import shutil
from pathlib import Path

import pytest

from main import main
from self_pruner.agent.compare.results import Results
from self_pruner.agent.run_files.binding import FILE
from tests.stopped import in_place_of
from tests.tiny import tiny_folder

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *(
        "--slope-tokens",
        "64",
        "--reporting-tokens",
        "128",
        "--calibration-length",
        "64",
        "--calibration-sequences",
        "4",
    ),
    *("--brain", "uniform", "--tokens", "4000"),
]


@pytest.fixture(scope="module")
def compare(model, cache, tmp_path_factory):
    """Carries out a compare command on the tiny model; returns its exit status."""
    runs = tmp_path_factory.mktemp("runs")

    def compare(folder, *words):
        options = ["compare", "--model", model, "--cache", cache, "--runs", runs, "--sparsity", "0.3", *SMALL]
        return main([str(word) for word in [*options, "--into", folder, *words]])

    return compare


@pytest.fixture(scope="module")
def finished(compare, tmp_path_factory) -> Path:
    """A comparison of one arm, which measures little."""
    folder = tmp_path_factory.mktemp("finished") / "compared"
    assert compare(folder, "--arms", "uniform") == 0
    return folder


@pytest.fixture
def compared(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "compared"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The tiny model with other weights."""
    return tiny_folder(tmp_path_factory.mktemp("other") / "tiny", seed=1)


def sentence(capfd):
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_other_weights_do_not_come_into_the_table(compare, compared, model, other, capfd):
    before = (compared / "results.json").read_bytes()
    with in_place_of(model, other):
        assert compare(compared, "--arms", "flap") == 2
        assert "was begun with the weights" in sentence(capfd)
        assert main(["resume", str(compared)]) == 2
        assert "was begun with the weights" in sentence(capfd)
    assert (compared / "results.json").read_bytes() == before
    assert compare(compared, "--arms", "flap") == 0
    found = Results.model_validate_json((compared / "results.json").read_text())
    assert {run.arm for run in found.runs} == {"uniform", "flap"} and found.bound is not None
    assert set(found.bound.texts) == {"reporting passages"} and str(model.parent) not in found.bound.model_dump_json()
    assert len(list(compared.glob(f"runs/*/*/{FILE}"))) == 2  # every run is bound by itself, too


def test_a_comparison_of_before_is_known_by_its_dense_model(compare, compared, model, other, capfd):
    (compared / FILE).unlink()
    with in_place_of(model, other):
        assert compare(compared, "--arms", "flap") == 2
        assert "was begun with a dense model of perplexity" in sentence(capfd)
    assert not (compared / FILE).exists()
    assert compare(compared, "--arms", "flap") == 0
    assert (compared / FILE).exists()


def test_results_of_another_model_are_not_counted_in(compare, compared, tmp_path, capfd):
    kept = tmp_path / "kept.json"
    content = json.loads((compared / "results.json").read_text())
    content["bound"]["weights"] = "0123456789abcdef"
    kept.write_text(json.dumps(content))
    assert compare(compared, "--arms", "uniform", "--from", kept) == 2  # as the folder is bound already
    assert "runs were made with the weights 0123456789ab (in " in sentence(capfd)
    assert (
        compare(tmp_path / "new", "--arms", "uniform", "--from", kept, "--from", compared) == 2
    )  # or as the two differ
    assert f"--from {compared}: its runs were made with the weights" in sentence(capfd)
    assert not (tmp_path / "new").exists()
    assert compare(tmp_path / "new", "--arms", "uniform,flap", "--from", kept) == 2  # or as the model here does
    assert "was begun with the weights 0123456789ab (now " in sentence(capfd)


def test_results_of_another_version_are_counted_in_and_it_is_said(compare, compared, tmp_path, capfd):
    content = json.loads((compared / "results.json").read_text())
    content["bound"]["versions"]["torch"] = "1.13.1"
    (compared / "results.json").write_text(json.dumps(content))
    assert compare(tmp_path / "new", "--arms", "uniform", "--from", compared) == 0
    assert compare(tmp_path / "new", "--arms", "uniform", "--from", compared) == 0
    assert "torch 1.13.1" not in capfd.readouterr().out  # it is what the new one was begun with
    content["bound"]["versions"]["torch"] = "1.12.0"
    (compared / "results.json").write_text(json.dumps(content))
    assert compare(tmp_path / "new", "--arms", "uniform", "--from", compared) == 0
    assert "torch 1.12.0 (in " in capfd.readouterr().out
