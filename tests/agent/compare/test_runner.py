"""A comparison as a user makes it: on a tiny model, at equal cost, resumable, one sentence for every mistake."""

import json
import shutil
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest

from main import main
from self_pruner.agent.compare import runner
from self_pruner.agent.compare.folder import RECORD, ComparisonFolder
from self_pruner.agent.compare.page import write_finished
from self_pruner.agent.compare.results import Results
from self_pruner.agent.run_files.binding import FILE
from tests.ended import ended
from tests.stopped import in_place_of
from tests.tiny import tiny_folder

ROOT = Path(__file__).parents[3]
SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--sensitivity-tokens", "64", "--reporting-tokens", "128", "--calibration-length", "64"),
    *("--calibration-sequences", "4", "--offspring", "4", "--initial", "2", "--population", "2"),
    *("--brain", "uniform", "--tokens", "4000", "--sparsity", "0.3", "--seeds", "1"),
]


@pytest.fixture(scope="module")
def words(model, cache, tmp_path_factory):
    """The words of a compare command on the tiny model."""
    runs = tmp_path_factory.mktemp("runs")

    def words(folder, *extra):
        options = ["compare", "--model", model, "--cache", cache, "--runs", runs, *SMALL]
        return [str(word) for word in [*options, "--into", folder, *extra]]

    return words


@pytest.fixture(scope="module")
def compare(words):
    """Carries out a compare command; returns its exit status."""

    def compare(folder, *extra):
        return main(words(folder, *extra))

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


def results(folder):
    return Results.model_validate_json((folder / "results.json").read_text())


def sentence(capfd):
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_arms_cost_the_same_and_are_charged_for_the_probes_they_use(compare, tmp_path):
    folder = tmp_path / "compared"
    assert compare(folder, "--arms", "uniform,sensitivity,random,evolution", "--arm", "hybrid+fidelity=128,256") == 0
    found = results(folder)
    by = {run.arm.partition("+")[0]: run for run in found.runs}
    assert not found.missing and len(found.runs) == len(by) == 5
    assert "--arm evolution --arm hybrid+fidelity=128,256 --seeds 1" in found.command
    for run in (by["random"], by["evolution"], by["hybrid"]):
        assert run.cost - 3 * 2 * 128 <= 4000  # the final choice comes on top: a few candidates, 128 tokens each
        assert run.curve and run.curve[-1].cost <= 4000
        assert run.texts[0].perplexity > 0 and run.fitness is not None
    assert 0 < by["evolution"].probe_tokens == by["sensitivity"].probe_tokens
    assert by["hybrid"].probe_tokens == by["evolution"].probe_tokens + 128  # its prompts quote the uniform one
    assert by["random"].probe_tokens == by["uniform"].probe_tokens == 0
    assert by["evolution"].mlp != by["random"].mlp or by["evolution"].attention != by["random"].attention
    for name in ("table.md", "table.csv", "compare.html"):
        assert (folder / name).stat().st_size > 200
    assert str(tmp_path) not in json.dumps(found.settings)


def test_a_comparison_goes_on_and_grows_and_measures_nothing_again(compare, compared, capfd):
    (record,) = compared.rglob(RECORD)
    before = record.stat().st_mtime_ns
    assert compare(compared, "--arms", "flap") == 0
    assert {run.arm for run in results(compared).runs} == {"uniform", "flap"}
    assert record.stat().st_mtime_ns == before
    assert main(["report", str(compared)]) == 0
    assert "flap" in capfd.readouterr().out


def test_whoever_writes_the_results_writes_those_of_arms_that_others_added(compare, compared):
    begun = ComparisonFolder.open(compared)
    assert compare(compared, "--arms", "flap") == 0
    assert (
        {run.arm for run in write_finished(begun.path, {}).runs}
        == {run.arm for run in results(compared).runs}
        == {"uniform", "flap"}
    )


def test_a_record_that_a_version_of_before_wrote_into_the_run_directory_counts(compared):
    (record,) = compared.rglob(RECORD)
    (directory,) = (path.parent for path in compared.rglob("trace.jsonl"))
    record.rename(directory / RECORD)
    before = results(compared)
    assert main(["report", str(compared)]) == 0
    assert results(compared).runs == before.runs


def test_a_killed_comparison_resumes(words, compared):
    (record,) = compared.rglob(RECORD)
    before = record.stat().st_mtime_ns
    status, errors = ended(words(compared, "--arms", "evolution"), compared, "run_begun")
    assert status == -signal.SIGKILL, errors
    assert list(compared.rglob(RECORD)) == [record]
    assert main(["resume", str(compared)]) == 0
    found = results(compared)
    assert {run.arm for run in found.runs} == {"uniform", "evolution"} and not found.missing
    assert record.stat().st_mtime_ns == before


# --- runs that were finished elsewhere


def test_runs_finished_elsewhere_count_and_are_not_run_again(compare, finished, tmp_path):
    kept = tmp_path / "kept.json"  # all that is left of the first comparison
    before = results(finished)
    del before.settings["temperature"]  # results older than this setting, which were made as with its default
    before.settings["racing"] = 1.0  # and older than the end of this one, which changed nothing
    kept.write_text(before.model_dump_json())
    assert compare(tmp_path / "new", "--arms", "uniform,flap", "--from", kept) == 0
    found = results(tmp_path / "new")
    assert {run.arm for run in found.runs} == {"uniform", "flap"} and not found.missing
    assert [run for run in found.runs if run.arm == "uniform"] == before.runs
    assert found.dense == before.dense
    assert len(list((tmp_path / "new").rglob("trace.jsonl"))) == 1  # flap alone


def test_figures_are_said_to_be_of_where_they_were_made(compare, compared, tmp_path):
    old = results(compared)
    made = {"versions": {**old.versions, "torch": "2.9.9"}, "machine": "192 processors, Linux aarch64"}
    older = [run.model_copy(update={"versions": None, "machine": None}) for run in old.runs]  # of before
    kept = tmp_path / "kept.json"
    kept.write_text(old.model_copy(update={**made, "runs": older}).model_dump_json())
    assert compare(tmp_path / "new", "--arms", "uniform", "--from", kept) == 0
    found = results(tmp_path / "new")
    assert found.machine == "192 processors, Linux aarch64" and found.versions["torch"] == "2.9.9"
    assert compare(tmp_path / "new", "--arms", "uniform-mlp") == 0
    both = results(tmp_path / "new")
    assert both.machine == f"192 processors, Linux aarch64 and {old.machine}"
    assert both.versions["torch"] == f"2.9.9 and {old.versions['torch']}"


@pytest.mark.parametrize("fault", [MemoryError("no room"), KeyboardInterrupt()], ids=["memory", "Ctrl-C"])
def test_what_ends_a_comparison_while_it_is_prepared_is_a_sentence(compare, tmp_path, monkeypatch, capfd, fault):
    monkeypatch.setattr(runner, "prepare", Mock(side_effect=fault))
    status, said = (2, "does not fit on") if isinstance(fault, MemoryError) else (130, "Go on with: python main.py")
    assert compare(tmp_path / "new", "--arms", "uniform") == status
    assert said in "".join(capfd.readouterr())


def test_other_settings_or_other_files_are_not_counted_in(compare, compared, tmp_path, capfd):
    other = tmp_path / "other.json"
    other.write_text("{}")
    for extra, expected in (
        (["--from", compared, "--tokens", "9999"], "its runs have tokens 4000, not 9999"),
        (["--from", compared, "--temperature", "0.3"], "its runs have temperature 0.8, not 0.3"),
        (["--from", tmp_path / "nowhere"], "cannot be read: No such file or directory"),
        (["--from", other], "is not the results of a comparison"),
    ):
        assert compare(tmp_path / "new", "--arms", "random", *extra) == 2
        assert expected in sentence(capfd)
        assert not (tmp_path / "new").exists()


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


# --- a table holds one model: whatever lies in its place later is refused


def test_other_weights_do_not_come_into_the_table(compare, compared, model, other, capfd):
    before = (compared / "results.json").read_bytes()
    with in_place_of(model, other):
        assert compare(compared, "--arms", "flap") == 2
        assert "was begun with the weights" in sentence(capfd)
        assert main(["resume", str(compared)]) == 2
        assert "was begun with the weights" in sentence(capfd)
    assert (compared / "results.json").read_bytes() == before
    assert compare(compared, "--arms", "flap") == 0
    found = results(compared)
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


# --- mistakes

BAD = {
    "unknown arm": (["--arms", "evolutoin"], "did you mean 'evolution'"),
    "a comma in a setting": (
        ["--arms", "evolution+fidelity=64,128"],
        "no arm '128': an arm whose settings have commas",
    ),
    "wrong share": (["--arm", "random", "--sparsity", "3"], "--sparsity"),
    "impossible share": (["--arm", "random", "--sparsity", "0.99"], "cannot be reached"),
    "wrong seeds": (["--arm", "random", "--seeds", "none"], "--seeds"),
    "a setting of all": (["--arm", "random+model=x"], "same for all arms"),
    "no arms": ([], "--arm needs at least one of hybrid, "),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_and_leaves_nothing(compare, tmp_path, capfd, case):
    extra, expected = BAD[case]
    assert compare(tmp_path / "compared", *extra) == 2
    assert expected in sentence(capfd)
    assert not (tmp_path / "compared").exists()


def test_a_comparison_with_other_settings_is_refused(compare, compared, capfd):
    assert compare(compared, "--arms", "uniform", "--tokens", "9999") == 2
    assert "that comparison has tokens 4000, not 9999; all arms of a comparison share" in sentence(capfd)


def test_a_folder_that_is_no_comparison_is_refused(compare, tmp_path, capfd):
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "thesis.txt").write_text("mine")
    assert compare(tmp_path / "compared", "--arms", "uniform") == 2
    assert "neither empty nor a comparison" in sentence(capfd)
