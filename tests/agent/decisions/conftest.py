"""One decision set of a tiny model, made once by the command itself."""

import shutil

import pytest

from main import main
from self_pruner.agent.decisions.decision_set import FILE, read_set
from tests.tiny import tiny_folder

AMOUNTS = [
    *("--sequence-length", "64", "--fidelity", "64,128", "--probe-tokens", "64", "--sensitivity-tokens", "64"),
    *("--final-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4", "--dtype", "float32"),
    *("--fitness-text", "passages", "--evaluations", "30", "--situations", "8", "--sparsity", "0.3"),
]


def refused(capsys, status):
    """The one sentence of a command that was refused."""
    assert status == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("error: ") and sentence.count("\n") == 1
    return sentence


@pytest.fixture(scope="session")
def tiny_target(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("decisions") / "tiny", num_hidden_layers=10)


@pytest.fixture(scope="session")
def command(tiny_target, tmp_path_factory):
    """The command with these amounts, into a folder; returns its exit status."""
    cache = tmp_path_factory.mktemp("cache")

    def carry_out(into, *words, model=tiny_target):
        start = ["decisions", "--model", str(model), "--cache", str(cache), "--into", str(into)]
        return main([*start, *AMOUNTS, *words])

    return carry_out


@pytest.fixture(scope="session")
def made(command, tmp_path_factory):
    """The folder of a whole set on which the controls were scored; nobody may change it."""
    folder = tmp_path_factory.mktemp("set") / "set"
    assert command(folder, "--brain", "uniform,first") == 0
    return folder


@pytest.fixture
def own(made, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(made, tmp_path / "own")


@pytest.fixture(scope="session")
def decision_set(made):
    return read_set(made / FILE)
