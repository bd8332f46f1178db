"""A run whose memory is deleted, moved or out of reach: nothing of it is lost, and the memory is filled again."""

import shutil
import signal
import sqlite3
from contextlib import closing

import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.records import Candidate, Generation, Score
from self_pruner.memory.store import Memory
from tests.agent.session.test_resume import SETTINGS, candidates
from tests.ended import ended
from tests.stopped import do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]


@pytest.fixture(scope="module")
def options(model, cache):
    return [
        "--model",
        model,
        "--cache",
        cache,
        *SETTINGS.split(),
        "--arm",
        "evolution",
        "--no-recalibrate",
        "--evaluations",
        12,
    ]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """The run that nobody disturbs."""
    runs = tmp_path_factory.mktemp("whole")
    do("--runs", runs, *options)
    return RunDirectory.latest(runs)


@pytest.fixture(scope="module")
def killed_once(options, tmp_path_factory):
    """A run killed in the middle of its search, and a copy of its place that no test touches."""
    runs = tmp_path_factory.mktemp("half") / "runs"
    status, errors = ended(["--runs", runs, *options], runs, "lines_in_trace(15)")
    assert status == -signal.SIGKILL, errors
    return RunDirectory.latest(runs), shutil.copytree(runs, runs.parent / "kept")


@pytest.fixture
def half(killed_once):
    """That run, as it was left, in the place where it was made."""
    run, kept = killed_once
    shutil.rmtree(run.parent)
    shutil.copytree(kept, run.parent)
    return run


def remove_memory(run):
    for file in run.parent.glob("memory.sqlite*"):
        file.unlink()


def in_words(text):
    """What was printed, without the line breaks of a narrow terminal."""
    return " ".join(text.split())


def known(path, run):
    """What the file at `path` knows of a run: one list for each kind of fact."""
    with closing(sqlite3.connect(path)) as file:
        (context,) = file.execute("SELECT context FROM candidate LIMIT 1").fetchone()
    with Memory(path, context, {}) as memory:
        name = RunDirectory.open(run).id
        return [memory.recall(kind, run=name) for kind in (Candidate, Generation, Score)]


def test_a_run_whose_memory_was_deleted_resumes_to_the_same_and_fills_it_again(half, whole):
    before = known(half / "records.sqlite", half)
    assert all(before)
    remove_memory(half)
    said = in_words(do("resume", half).stdout)
    assert "records of this run and has them again" in said
    assert candidates(half) == candidates(whole)
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (half / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    own, shared = known(half / "records.sqlite", half), known(half.parent / "memory.sqlite", half)
    assert own == shared
    assert all(set(map(repr, kept)) <= set(map(repr, now)) for kept, now in zip(before, own, strict=True))


def test_a_run_of_an_earlier_version_gets_its_own_file_from_the_memory(half, whole):
    for file in half.glob("records.sqlite*"):
        file.unlink()
    said = in_words(do("resume", half).stdout)
    assert "The run had no records.sqlite yet" in said and "were copied from the memory" in said
    assert candidates(half) == candidates(whole)
    assert known(half / "records.sqlite", half) == known(half.parent / "memory.sqlite", half)


def test_a_run_whose_memory_is_out_of_reach_goes_on_without_it(half, whole):
    remove_memory(half)
    (half.parent / "memory.sqlite").write_text("something else by now")
    said = in_words(do("resume", half).stdout)
    assert "warning" in said and "the run goes on with its own records.sqlite" in said
    assert candidates(half) == candidates(whole)
    assert (half.parent / "memory.sqlite").read_text() == "something else by now"


def test_a_run_of_which_nothing_is_left_but_its_place_says_so(half):
    remove_memory(half)
    for file in half.glob("records.sqlite*"):
        file.unlink()
    refused = do("resume", half, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "neither its own records.sqlite nor the memory" in in_words(refused.stderr)


def test_a_run_that_lost_its_place_says_so(half):
    for file in half.glob("checkpoint.sqlite*"):
        file.unlink()
    refused = do("resume", half, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "its checkpoint.sqlite, which says where the search was, is gone" in in_words(refused.stderr)


def test_a_finished_run_is_exported_reported_and_traced_without_its_memory(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "moved" / whole.name)
    settings = (run / "settings.toml").read_text()
    gone = tmp_path / "gone" / "memory.sqlite"
    lines = [line for line in settings.splitlines() if not line.startswith("memory")]
    (run / "settings.toml").write_text("\n".join([*lines, f'memory = "{gone}"', ""]))
    folder = tmp_path / "exported"
    said = in_words(do("export", run, "--candidate", "c1", "--output", folder, "--yes").stdout)  # settings were edited
    assert "and has them again" in said and gone.exists()
    assert (folder / "model.safetensors").exists()
    assert "prune_model" in do("trace", run).stdout
    assert "found" in do("report", run).stdout
