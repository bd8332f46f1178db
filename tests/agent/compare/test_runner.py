"""A comparison as a user makes it: on a tiny model, at equal cost, resumable, one sentence for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from main import main
from self_pruner.agent.compare.collect import RECORD
from self_pruner.agent.compare.results import Results

ROOT = Path(__file__).parents[3]
SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4"),
    *("--offspring", "4", "--initial", "2", "--population", "2", "--brain", "uniform", "--tokens", "4000"),
]


@pytest.fixture
def words(model, cache, tmp_path):
    """The words of a compare command on the tiny model."""

    def words(*extra):
        options = ["compare", "--model", model, "--cache", cache, "--runs", tmp_path / "runs", *SMALL]
        return [str(word) for word in [*options, "--into", tmp_path / "compared", *extra]]

    return words


def results(folder):
    return Results.model_validate_json((folder / "results.json").read_text())


def test_arms_cost_the_same_and_are_charged_for_the_probes_they_use(words, tmp_path, capfd):
    arms = "uniform,sensitivity,random,evolution,hybrid"
    assert main(words("--arms", arms, "--seeds", "2", "--sparsity", "0.3")) == 0
    found = results(tmp_path / "compared")
    assert not found.missing and len(found.runs) == 2 + 3 * 2
    by = {(run.arm, run.seed): run for run in found.runs}
    for arm in ("random", "evolution", "hybrid"):
        for seed in (0, 1):
            run = by[arm, seed]
            assert run.cost - 3 * 2 * 128 <= 4000  # the final choice comes on top: a few candidates, 128 tokens each
            assert run.curve and run.curve[-1].cost <= 4000
            assert run.texts[0].perplexity > 0 and run.fitness is not None
    assert 0 < by["evolution", 1].probe_tokens == by["sensitivity", 0].probe_tokens
    assert by["hybrid", 0].probe_tokens == by["evolution", 1].probe_tokens + 128  # its prompts quote the uniform one
    assert by["random", 0].probe_tokens == by["uniform", 0].probe_tokens == 0
    assert by["evolution", 0].mlp != by["random", 0].mlp or by["evolution", 0].attention != by["random", 0].attention
    for name in ("table.md", "table.csv", "compare.html"):
        assert (tmp_path / "compared" / name).stat().st_size > 200
    assert str(tmp_path) not in json.dumps(found.settings)
    capfd.readouterr()


def test_a_comparison_goes_on_and_grows_and_measures_nothing_again(words, tmp_path, capfd):
    assert main(words("--arms", "uniform", "--seeds", "1", "--sparsity", "0.3")) == 0
    (record,) = (tmp_path / "compared").rglob(RECORD)
    before = record.stat().st_mtime_ns
    assert main(words("--arms", "random", "--seeds", "1", "--sparsity", "0.3")) == 0
    assert {run.arm for run in results(tmp_path / "compared").runs} == {"uniform", "random"}
    assert record.stat().st_mtime_ns == before
    assert main(["report", str(tmp_path / "compared")]) == 0
    assert "random" in capfd.readouterr().out


def test_runs_finished_elsewhere_count_and_are_not_run_again(words, tmp_path, capfd):
    assert main(words("--arms", "uniform,random", "--seeds", "1", "--sparsity", "0.3")) == 0
    elsewhere = tmp_path / "compared" / "results.json"
    kept = elsewhere.rename(tmp_path / "kept.json")  # all that is left of the first comparison
    shutil.rmtree(tmp_path / "compared")
    before = Results.model_validate_json(kept.read_text())
    del before.settings["slopes"]  # results older than this setting, which were made as with its default
    before.settings["racing"] = 1.0  # and older than the end of this one, which was made as with its last value
    kept.write_text(before.model_dump_json())
    assert main(words("--arms", "uniform,random,flap", "--seeds", "1", "--sparsity", "0.3", "--from", kept)) == 0
    found = results(tmp_path / "compared")
    assert {run.arm for run in found.runs} == {"uniform", "random", "flap"} and not found.missing
    assert [run for run in found.runs if run.arm != "flap"] == before.runs
    assert found.dense == before.dense
    run = {path.parent.name for path in (tmp_path / "compared").rglob("trace.jsonl")}
    assert len(run) == 1  # flap alone
    capfd.readouterr()


def test_other_settings_or_other_files_are_not_counted_in(words, tmp_path, capfd):
    assert main(words("--arms", "uniform", "--seeds", "1", "--sparsity", "0.3")) == 0
    kept = (tmp_path / "compared").rename(tmp_path / "kept")
    capfd.readouterr()
    other = tmp_path / "other.json"
    other.write_text("{}")
    for extra, sentence in (
        (["--from", kept, "--tokens", "9999"], "its runs have tokens 4000, not 9999"),
        (["--from", kept, "--mutation-step", "2"], "its runs have mutation-step 4, not 2"),
        (["--from", tmp_path / "nowhere"], "cannot be read: No such file or directory"),
        (["--from", other], "is not the results of a comparison"),
    ):
        assert main(words("--arms", "random", "--sparsity", "0.3", *extra)) == 2
        error = capfd.readouterr().err
        assert sentence in error and error.count("\n") == 1
        assert not (tmp_path / "compared").exists()


def test_a_killed_comparison_resumes(words, tmp_path, capfd):
    arguments = words("--arms", "evolution", "--seeds", "2", "--sparsity", "0.3")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "compared").rglob("trace.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main(["resume", str(tmp_path / "compared")]) == 0
    found = results(tmp_path / "compared")
    assert [run.seed for run in found.runs] == [0, 1] and not found.missing
    capfd.readouterr()


BAD = {
    "unknown arm": (["--arms", "evolutoin"], "did you mean 'evolution'"),
    "wrong share": (["--arms", "random", "--sparsity", "3"], "--sparsity"),
    "impossible share": (["--arms", "random", "--sparsity", "0.99"], "cannot be reached"),
    "wrong seeds": (["--arms", "random", "--seeds", "none"], "--seeds"),
    "a setting of all": (["--arms", "random+model=x"], "same for all arms"),
    "no arms": ([], "--arms"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words, tmp_path, capfd, case):
    extra, sentence = BAD[case]
    assert main(words(*extra)) == 2
    error = capfd.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "compared").exists()


def test_a_comparison_with_other_settings_is_refused(words, tmp_path, capfd):
    assert main(words("--arms", "uniform", "--seeds", "1", "--sparsity", "0.3")) == 0
    assert main(words("--arms", "uniform", "--tokens", "9999")) == 2
    assert "share their settings" in capfd.readouterr().err


def test_a_folder_that_is_no_comparison_is_refused(words, tmp_path, capfd):
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "thesis.txt").write_text("mine")
    assert main(words("--arms", "uniform")) == 2
    assert "neither empty nor a comparison" in capfd.readouterr().err
