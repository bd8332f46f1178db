"""The found profile recalibrated: the better weights are the result, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from main import main
from self_pruner.agent.prepare.run import Run
from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.result import recalibration as module
from self_pruner.agent.result.outcome import Outcome, Recalibration, Row, recalibration_sentence
from self_pruner.agent.result.recalibration import pieces, recalibrated, recalibrated_context
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.records import Score
from self_pruner.memory.store import Memory
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning.store import ResidentLayers
from tests.pretended_devices import pretended_devices, put_model
from tests.stopped import copied, do

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "512"),
    *("--reporting-tokens", "128", "--evaluations", "4", "--offspring", "3", "--initial", "2", "--population", "2"),
    *("--benchmarks", "0", "--sparsity", "0.3", "--brain", "first", "--remembered", "0"),
]
TOO_LITTLE = ["--calibration-length", "16", "--calibration-sequences", "1"]


@pytest.fixture
def run(model, cache, tmp_path):
    """Runs the command line on the tiny model; returns the exit status."""

    def run(*words):
        options = ["--model", model, "--runs", tmp_path / "runs", "--cache", cache, *SMALL]
        return main([str(word) for word in [*(options if str(words[0]).startswith("-") else []), *words]])

    return run


@pytest.fixture
def made(model, cache, tmp_path):
    """A run of the tiny model on a little text, whose search has not begun."""
    settings = make_settings(
        {
            **dict(model=str(model), cache=cache, runs=tmp_path, sequence_length=64, fidelity=(128, 256)),
            **dict(probe_tokens=64, final_tokens=512, reporting_tokens=128, benchmarks=0, sparsity=0.3),
            **dict(calibration_length=256, calibration_sequences=64),
        }
    )
    prepared = prepare(settings, "run", quiet())
    with closing(prepared.bench.memory):
        yield Run(settings, SimpleNamespace(path=tmp_path), prepared, quiet())


def quiet() -> View:
    return View(Console(file=StringIO()))


def the_run(path) -> RunDirectory:
    (found,) = (path / "runs").glob("tiny-*")
    return RunDirectory.open(found)


def result(path) -> Outcome:
    outcome = read_outcome(the_run(path).path)
    assert outcome is not None
    return outcome


def test_where_it_helps_the_recalibrated_weights_are_exported_and_everything_says_so(undisturbed, tmp_path):
    shown = do("report", undisturbed).stdout
    outcome = read_outcome(undisturbed)
    facts = outcome.recalibration
    assert facts.recalibrated < facts.searched == outcome.holdout[outcome.candidate]
    assert facts.searched == min(outcome.holdout.values()) < max(outcome.holdout.values())
    assert outcome.result == "found, recalibrated" and [row.name for row in outcome.rows][-2:] == [
        "found",
        outcome.result,
    ]
    assert outcome.row("found, recalibrated").kl != outcome.row("found").kl
    assert {row.name for row in outcome.texts} >= {"found", "found, recalibrated"}
    folder = RunDirectory.open(undisturbed)
    card = (folder.model / "README.md").read_text()
    for page in (" ".join(shown.split()), folder.report.read_text(), card):
        assert "so the result has the recalibrated weights" in page
    assert "*found, recalibrated* is this" in card and "| found, recalibrated |" in card
    assert outcome.verified is not None  # against the recalibrated logits

    other = tmp_path / "other"
    said = do("export", folder.path, "--candidate", outcome.candidate, "--output", other).stdout
    assert "so the result has the recalibrated weights" in " ".join(said.split())
    exported, again = load_file(folder.model / "model.safetensors"), load_file(other / "model.safetensors")
    assert exported.keys() == again.keys() and all(torch.equal(exported[name], again[name]) for name in exported)


def test_where_it_does_not_help_the_run_ends_as_without_it(run, believed, tmp_path, capfd):
    assert run(*TOO_LITTLE) == 0
    first, with_it = the_run(tmp_path), result(tmp_path)
    assert with_it.recalibration.recalibrated >= with_it.recalibration.searched
    assert with_it.result == "found"
    assert "recalibration did not help" in " ".join(capfd.readouterr().out.split())
    assert "*found* is this" in (first.model / "README.md").read_text()
    kept = load_file(first.model / "model.safetensors")
    shutil.rmtree(first.path)
    (tmp_path / "runs" / "memory.sqlite").unlink()
    assert run(*TOO_LITTLE, "--no-recalibrate") == 0
    without = result(tmp_path)
    assert without.recalibration is None and "recalibrat" not in capfd.readouterr().out
    assert (without.candidate, without.rows) == (
        with_it.candidate,
        [row for row in with_it.rows if "," not in row.name],
    )
    plain = load_file(the_run(tmp_path).model / "model.safetensors")
    assert all(torch.equal(kept[name], plain[name]) for name in plain)


def test_too_little_memory_is_a_fact_of_the_result_and_not_its_end(chosen, believed, tmp_path, monkeypatch):
    run = copied(chosen, tmp_path)
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    said = " ".join(do("resume", run).stdout.split())
    assert "could not be recalibrated (its refits need" in said and "of memory, and 1.0 KB are free" in said
    outcome = read_outcome(run)
    assert outcome.result == "found" and [row.name for row in outcome.rows][-1] == "found"


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(28, "full")])
def test_what_is_no_refusal_ends_the_step(made, monkeypatch, error):
    def faulty(*_, **__):
        raise error

    monkeypatch.setattr(module, "recalibrate", faulty)
    with pytest.raises(type(error)) as raised:
        recalibrated(made, uniform(made.bench.budget))
    assert raised.value is error


@pytest.mark.parametrize(
    ("free", "refused"),
    [
        ({"cuda:0": 1 << 30, "cuda:1": 1 << 30, "cpu": 1 << 30}, None),
        ({"cuda:0": 1 << 30, "cuda:1": 1000, "cpu": 1 << 30}, "of memory on cuda:1, and 1.0 KB are free"),
        ({"cuda:0": 1 << 30, "cuda:1": 1 << 30, "cpu": 1000}, "of memory, and 1.0 KB are free"),
    ],
)
def test_room_is_asked_of_the_devices_that_compute_and_of_main_memory_for_what_is_kept(
    made, monkeypatch, free, refused
):
    elastic, profile = made.bench.elastic, uniform(made.bench.budget)
    monkeypatch.setattr(module, "free_memory", lambda device: free[str(device)])
    with pretended_devices():
        put_model(elastic.model, "cuda:0", ("cuda:0", *["cuda:1"] * (len(elastic.store) - 1)))
        if refused is None or "cuda" not in refused:
            module.check_room(elastic, profile, in_memory=False)  # where refits go to a file it is of no account
        if refused is None:
            module.check_room(elastic, profile, in_memory=True)
            return
        with pytest.raises(MeasurementError, match=refused):
            module.check_room(elastic, profile, in_memory=True)


@pytest.mark.parametrize("streamed", [False, True])
def test_without_room_on_the_disk_only_a_streamed_model_goes_without_refits(made, monkeypatch, streamed):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    if streamed:
        monkeypatch.setattr(module, "StreamedLayers", ResidentLayers)  # what this model has is taken for it
    profile = uniform(made.bench.budget)
    found = recalibrated(made, profile, keep=True)
    assert not (made.directory.path / module.KEPT).exists()
    if streamed:
        assert "of disk in" in found.facts.failure and "1.0 KB are free" in found.facts.failure
    else:
        assert found.facts.recalibrated is not None and "there is no room to keep" in made.view.console.file.getvalue()


def test_scores_of_recalibrated_weights_are_remembered_apart(made):
    profile = uniform(made.bench.budget)
    first = recalibrated(made, profile)
    own = recalibrated_context(made.bench.memory.context, profile)
    with Memory(made.bench.memory.path, own, {}) as memory:
        scores = memory.recall(Score)
        assert len(scores) == 10 and {score.profile for score in scores} == {profile}
        assert len({score.text for score in scores}) == 2
    holdout = [score.kl for score in made.bench.scores(profile).values()]
    assert sum(holdout) / len(holdout) == pytest.approx(first.facts.searched)
    assert first.facts.searched != first.facts.recalibrated
    again = recalibrated(
        replace(made, prepared=replace(made.prepared, bench=replace(made.bench, run="another"))), profile
    )
    assert (again.facts, again.rows) == (first.facts, first.rows)
    with Memory(made.bench.memory.path, own, {}) as memory:
        assert memory.recall(Score) == scores  # what the first run measured, and nothing of the second's
    assert own != recalibrated_context(made.bench.memory.context, profile.with_width(0, "mlp", 1))


def test_the_model_handed_on_is_the_better_one(made):
    dense = made.bench.budget.space.dense()
    kept = recalibrated(made, dense)  # at the dense profile there is nothing to make up for
    assert kept.facts.searched == pytest.approx(0, abs=1e-6)
    assert kept.elastic.is_recalibrated == kept.facts.better
    taken = recalibrated(made, uniform(made.bench.budget))
    assert taken.facts.better and taken.elastic.is_recalibrated and taken.elastic.model is made.bench.elastic.model


@pytest.mark.parametrize("changed", [{"recalibrate": False}, {"compensation": "none"}, {"compensation": "bias"}])
def test_it_is_left_out_where_it_is_not_asked_for_or_has_no_refits(made, changed):
    assert (
        recalibrated(replace(made, settings=made.settings.model_copy(update=changed)), uniform(made.bench.budget))
        is None
    )


def test_weights_that_cannot_be_measured_are_not_the_result(made, monkeypatch):
    original = module.recalibrate

    def spoilt(*arguments, **options):
        recalibration = original(*arguments, **options)
        recalibration.refits[1, "mlp"].fill_(torch.inf)
        return recalibration

    monkeypatch.setattr(module, "recalibrate", spoilt)
    found = recalibrated(made, uniform(made.bench.budget))
    assert found.facts.recalibrated is None and "not finite" in found.facts.failure
    assert found.elastic is made.bench.elastic
    assert all(row.kl is None for row in found.rows.values())


def outcome(facts: Recalibration | None) -> Outcome:
    return Outcome(
        **dict(candidate="c1", attention=[1], mlp=[1], dense={"attention": 1, "mlp": 1}, sparsity=0.3, stop=""),
        **dict(rows=[Row(name="found", params=1)], differences=[], holdout={}, measured_on="", latency_setting=None),
        **dict(spent={}, yields=[], warnings=[], recalibration=facts),
    )


def test_the_text_is_cut_into_sequences_as_long_as_those_that_are_measured():
    text = torch.arange(2 * 10).reshape(2, 10)
    assert pieces(text, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17]]
    assert pieces(text, 10) is text and pieces(text, 16) is text  # what is shorter stays as it is


def test_the_sentence_says_which_weights_and_why():
    better = recalibration_sentence(outcome(Recalibration(searched=0.7, recalibrated=0.6)))
    assert "0.6000 with refits of its own and 0.7000" in better and better.endswith("has the recalibrated weights.")
    equal = outcome(Recalibration(searched=0.7, recalibrated=0.7))
    assert equal.result == "found" and recalibration_sentence(equal).endswith("the weights it was searched with.")
    unknown = outcome(Recalibration(searched=None, recalibrated=0.7))
    assert unknown.result == "found, recalibrated" and "could not be measured" in recalibration_sentence(unknown)
    failed = outcome(Recalibration(searched=0.7, recalibrated=None, failure="no memory"))
    assert failed.result == "found" and "could not be recalibrated (no memory)" in recalibration_sentence(failed)
    assert recalibration_sentence(outcome(None)) == "" and outcome(None).result == "found"


def test_a_result_of_an_earlier_version_is_still_read():
    old = json.loads(outcome(None).model_dump_json())
    del old["recalibration"]
    assert Outcome.model_validate(old).recalibration is None
