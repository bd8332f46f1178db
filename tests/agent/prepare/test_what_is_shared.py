"""What one run leaves for the next, in the cache and in the memory, is found again only by a run that would make it.

Whatever a figure depends on is changed here alone: beside what an earlier run left, the figure must be the one that a
run measures which finds nothing at all.
"""

import shutil
from collections import namedtuple
from contextlib import closing
from io import StringIO

import pytest
from rich.console import Console

import self_pruner.agent.prepare.workbench as preparation
from main import main
from self_pruner.agent.prepare import devices
from self_pruner.agent.prepare.kept import keep
from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import KeptFileError
from self_pruner.tools.evaluate import measure
from self_pruner.tools.profiles.operators import uniform
from tests.tiny import tiny_folder

SMALL = dict(
    sequence_length=64,
    fidelity=(128,),
    probe_tokens=64,
    final_tokens=128,
    sensitivity_tokens=64,
    reporting_tokens=128,
    calibration_length=64,
    calibration_sequences=4,
    benchmarks=0,
    sparsity=0.3,
    dtype="float32",
    fitness_text="passages",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny models of one shape."""
    folder = tmp_path_factory.mktemp("models")
    return [tiny_folder(folder / str(seed) / "tiny", seed=seed) for seed in (0, 1)]


def test_what_another_process_was_faster_to_keep_stays_as_it_is(tmp_path):
    class Made:
        def __init__(self, said):
            self.said = said

        @classmethod
        def load(cls, path):
            if path.read_text() == "damaged":
                raise KeptFileError("it is damaged")
            return cls(path.read_text())

        def save(self, path):
            path.write_text(self.said)

    path, said = tmp_path / "kept", StringIO()

    def slow(meanwhile):
        path.write_text(meanwhile)
        return Made("mine")

    view = View(Console(file=said))
    assert keep(path, Made, lambda: slow("theirs"), view).said == "mine" and path.read_text() == "theirs"
    path.unlink()
    assert keep(path, Made, lambda: slow("damaged"), view).said == "mine" and path.read_text() == "mine"
    assert keep(path, Made, lambda: slow("never"), view).said == "mine" and not said.getvalue()


def figures(places, **changes):
    """KL of the uniform profile, sequence by sequence, and the dense model's own figures, measured or found there."""
    settings = make_settings({**SMALL, "runs": places, "memory": places / "memory.sqlite", **changes})
    bench = prepare(settings, "run", View(Console(file=StringIO()))).bench
    with closing(bench.memory):
        profile = uniform(bench.budget)
        measure(bench, [profile], range(2), 1)
        kl = [score.kl for _, score in sorted(bench.scores(profile).items())]
        return kl, bench.walks["fitness"].targets.nll


@pytest.fixture(scope="module")
def earlier(models, tmp_path_factory):
    """What an earlier run of the first model left, and its figures."""
    places = tmp_path_factory.mktemp("earlier")
    return places, figures(places, model=str(models[0]), cache=places)


CHANGES = {
    "weights": {},
    "importance": {"importance": "magnitude"},
    "compensation": {"compensation": "none"},
    "fitness text": {"fitness_text": "papers"},
    "calibration text": {"calibration": "papers"},
    "dtype": {"dtype": "bfloat16"},
    "sequence length": {"sequence_length": 32, "probe_tokens": 32, "sensitivity_tokens": 32},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_run_that_differs_finds_nothing_of_another_one(models, earlier, tmp_path, changed):
    other = models[1] if changed == "weights" else models[0]
    left, before = earlier
    shared, fresh = shutil.copytree(left, tmp_path / "shared"), tmp_path / "fresh"
    beside = figures(shared, model=str(other), cache=shared, **CHANGES[changed])
    alone = figures(fresh, model=str(other), cache=fresh, **CHANGES[changed])
    for found, measured in zip(beside, alone, strict=True):
        assert found == pytest.approx(measured, abs=1e-4)  # dense targets made in another order of units differ by less
    assert beside[0] != pytest.approx(before[0], abs=1e-4)


def test_a_run_that_does_not_differ_calculates_nothing_again(models, earlier, tmp_path, monkeypatch):
    moved = shutil.copytree(models[0], tmp_path / "elsewhere" / "other-name")  # the same weights under another name
    left, first = earlier
    shared = shutil.copytree(left, tmp_path / "shared")
    for name in ("calibrate", "DenseTargets"):
        kept = getattr(preparation, name)
        stand_in = None if name == "calibrate" else namedtuple("Kept", "load")(kept.load)
        monkeypatch.setattr(preparation, name, stand_in)
    assert figures(shared, model=str(moved), cache=shared) == first


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_what_has_no_room_is_refused_before_weights_are_loaded(models, tmp_path, monkeypatch, capfd, what):
    monkeypatch.delattr(preparation, "load")
    if what == "memory":
        monkeypatch.setattr(devices, "free_memory", lambda device: 1000)
    else:
        monkeypatch.setattr(devices.shutil, "disk_usage", lambda folder: namedtuple("Usage", "total free")(2000, 1000))
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "fidelity"]
    words = ["--model", models[0], "--cache", tmp_path / "cache", "--runs", tmp_path / "runs", *small]
    assert main([str(word) for word in [*words, "--fidelity", "128"]]) == 2
    error = capfd.readouterr().err
    place = "memory" if what == "memory" else "the disk of "
    assert f" of {place}" in error and "where 1.0 KB are free" in error and error.count("\n") == 1
    assert not list((tmp_path / "runs").glob("tiny-*"))
