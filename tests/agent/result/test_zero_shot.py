"""A run's zero-shot table: at its end or afterwards, on screen, in the report, on the card, and never asked twice."""

from contextlib import contextmanager

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.result.outcome import FOUND, RECALIBRATED
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.result.task_table import TITLES
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks import harness
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.pruning import smaller_model as smaller
from tests.agent.result.conftest import HELPS
from tests.stopped import copied, do, stopped_run
from tests.tools.evaluation.tasks.seven import write_tasks

SMALL = (
    "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
    "--calibration-length 64 --calibration-sequences 4 --evaluations 6 --offspring 3 --initial 2 --population 2 "
    "--benchmarks 0 --sparsity 0.3 --brain first"
)
MODELS = ["dense", "uniform", "closed form", FOUND]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"), 5)


@pytest.fixture
def call(capfd):
    """One command line; returns (status, standard output, standard error)."""

    def call(*words):
        status = main([str(word) for word in words])
        output = capfd.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture
def run(call, model, cache, tmp_path):
    """Carries out a run in `tmp_path/runs`."""

    def run(*words):
        return call("run", "--model", model, "--runs", tmp_path / "runs", "--cache", cache, *SMALL.split(), *words)

    return run


@pytest.fixture
def asked(monkeypatch):
    """Every task that the harness was really asked."""
    told = []
    real, really_made = harness.run_task, smaller.smaller_model

    def smaller_model(elastic, profile):
        made = really_made(elastic, profile)
        made.cut_as = (profile, elastic.is_recalibrated)
        return made

    def run_task(asked, suite, task):
        found = real(asked, suite, task)
        told.append((*asked.model.cut_as, task))
        return found

    monkeypatch.setattr(smaller, "smaller_model", smaller_model)
    monkeypatch.setattr(harness, "run_task", run_task)
    return told


@pytest.fixture(scope="module")
def plain(model, cache, tmp_path_factory):
    """A finished run without recalibration and checkpoint; to be copied."""
    run = copied(stopped_run(tmp_path_factory.mktemp("runs"), model, cache), tmp_path_factory.mktemp("plain"))
    do("resume", run)
    return run


def only_run(tmp_path):
    (path,) = (tmp_path / "runs").glob("tiny-*")
    return path


def expected(outcome):
    return MODELS + ([RECALIBRATED] if outcome.result == RECALIBRATED else [])


def test_a_run_with_tasks_ends_with_their_table_everywhere(run, data, believed, tmp_path, asked):
    status, output, errors = run(*HELPS, "--tasks", "--task-data", data, "--task-rows", "4")
    assert status == 0, errors
    path = only_run(tmp_path)
    outcome = read_outcome(path)
    assert outcome.result == RECALIBRATED
    assert [row.name for row in outcome.tasks.rows] == [*MODELS, RECALIBRATED]
    found = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    for weights in (True, False):  # the found profile was asked with either, and neither passes for the other
        assert {task for profile, recalibrated, task in asked if (profile, recalibrated) == (found, weights)} == {
            *TASKS
        }
    assert {profile for profile, recalibrated, _ in asked if recalibrated} == {found}
    assert set(outcome.tasks.asked.values()) == {4}
    for row in outcome.tasks.rows:
        assert set(row.tasks) == set(TASKS)
        assert row.mean.value == pytest.approx(sum(cell.value for cell in row.tasks.values()) / 7)
    assert len(asked) == len(set(asked))
    report, card = (path / "report.html").read_text(), (path / "model" / "README.md").read_text()
    for page in (output, report, card):
        assert all(title in page for title in TITLES.values()) and "mean of seven" in page
        assert f"{100 * outcome.tasks.rows[0].mean.value:.1f} ± " in page
        assert "lm-eval 0.4.13, 4 rows of each task" in " ".join(page.split())
    assert "task accuracy and" not in card and str(data) not in card


def test_tasks_afterwards_are_added_to_a_finished_run(undisturbed, call, data, tmp_path, asked, monkeypatch):
    path = copied(undisturbed, tmp_path)
    before = read_outcome(path)
    assert before.tasks is None and "task accuracy and" in (path / "model" / "README.md").read_text()

    status, output, errors = call("tasks", path, "--task-data", data, "--task-rows", "3")
    assert status == 0, errors
    outcome = read_outcome(path)
    assert [row.name for row in outcome.tasks.rows] == expected(outcome) and "Zero-shot tasks" in output
    assert outcome.model_copy(update={"tasks": None}) == before
    assert "Zero-shot tasks" in (path / "report.html").read_text()
    assert "## Zero-shot tasks" in (path / "model" / "README.md").read_text()
    assert "Zero-shot tasks" in call("report", path)[1]

    count = len(asked)
    with monkeypatch.context() as patch:
        patch.setattr(session, "prepare", None)  # not even loaded
        status, again, _ = call("tasks", path, "--task-data", data, "--task-rows", "3")
    assert status == 0 and len(asked) == count and again == output[output.index("Zero-shot tasks") :]

    other = next(f"c{number}" for number in range(1, 9) if f"c{number}" != outcome.candidate)
    status, output, errors = call("tasks", path, "--candidate", other, "--task-data", data, "--task-rows", "3")
    assert status == 0, errors
    assert [row.name for row in read_outcome(path).tasks.rows] == [*expected(outcome), other] and other in output

    call("tasks", path, "--task-data", data, "--task-rows", "2")  # other rows: another table
    assert [row.name for row in read_outcome(path).tasks.rows] == expected(outcome)
    assert set(read_outcome(path).tasks.asked.values()) == {2}


@contextmanager
def stopped_at(count, asked, monkeypatch):
    """Ctrl-C at the question after so many tasks."""
    counted = harness.run_task

    def stopped(model, suite, task):
        if len(asked) == count:
            raise KeyboardInterrupt
        return counted(model, suite, task)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "run_task", stopped)
        yield


def test_tasks_that_were_stopped_go_on_where_they_were(plain, call, data, tmp_path, asked, monkeypatch):
    path = copied(plain, tmp_path)
    words = ("tasks", path, "--task-data", data, "--task-rows", "3")
    with stopped_at(10, asked, monkeypatch):
        status, output, _ = call(*words)
    assert status == 130 and "The same command goes on" in output
    assert read_outcome(path).tasks is None
    assert call(*words)[0] == 0
    assert len(asked) == len(set(asked)) and len(asked) % len(TASKS) == 0


def test_a_run_that_was_stopped_at_its_tasks_is_resumed_there(run, call, data, tmp_path, asked, monkeypatch):
    with stopped_at(3, asked, monkeypatch):
        words = ("--no-recalibrate", "--no-export", "--tasks", "--task-data", data, "--task-rows", "3")
        assert run(*words)[0] == 130
    path = only_run(tmp_path)
    assert RunDirectory.open(path).status == "stopped"
    assert call("resume", path)[0] == 0
    assert read_outcome(path).tasks is not None
    assert len(asked) == len(set(asked))


BAD = {
    "no such folder": (lambda data: ["--task-data", data / "nowhere"], "there is no such folder"),
    "a missing file": (lambda data: ["--task-data", data], "piqa.jsonl is missing"),
    "a bad row": (lambda data: ["--task-data", data], "hellaswag.jsonl, line 1"),
    "too many rows": (lambda data: ["--task-data", data, "--task-rows", "9"], "--task-rows asks for 9"),
    "rows below none": (lambda data: ["--task-rows", "-1"], "--task-rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_tasks_that_cannot_be_asked_are_refused_before_anything_is_loaded(run, tmp_path, monkeypatch, case):
    data = write_tasks(tmp_path / "data", 5, **({"hellaswag": ["{}"]} if case == "a bad row" else {}))
    if case == "a missing file":
        (data / "piqa.jsonl").unlink()
    monkeypatch.setattr(session, "prepare", None)
    words, said = BAD[case]
    small = [] if "--task-rows" in words(data) else ["--task-rows", "3"]
    status, _, errors = run("--tasks", *words(data), *small)
    assert status == 2 and said in errors and errors.count("\n") == 1 and "Traceback" not in errors
    assert not list((tmp_path / "runs").glob("tiny*"))


def test_data_without_tasks_is_refused_rather_than_ignored(run, data):
    status, _, errors = run("--task-data", data)
    assert status == 2 and "--task-data is where --tasks are read from" in errors


def test_only_a_finished_run_and_its_own_candidates_have_tasks(plain, call, data, tmp_path, monkeypatch):
    status, _, errors = call("tasks", tmp_path, "--task-data", data)
    assert status == 2 and "there is no run" in errors
    with RunDirectory.create(tmp_path / "other", "mine", {"model": "x"}, device="cpu", seed=0) as made:
        path = made.path
    status, _, errors = call("tasks", path, "--task-data", data)
    assert status == 2 and "has no result yet" in errors and errors.count("\n") == 1
    monkeypatch.delattr(session, "prepare")  # nothing is loaded before it is refused
    status, _, errors = call(
        "tasks", copied(plain, tmp_path), "--task-data", data, "--task-rows", 2, "--candidate", "c99"
    )
    assert (
        status == 2 and "there is no candidate 'c99' in this run; it has c1 to c" in errors and errors.count("\n") == 1
    )


def test_the_run_need_not_be_started_in_the_folder_of_its_data(model, cache, data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(data.parent)
    words = [
        "--model",
        model,
        "--runs",
        tmp_path / "runs",
        "--cache",
        cache,
        *SMALL.split(),
        "--no-export",
        "--no-recalibrate",
    ]
    words += ["--tasks", "--task-data", data.name, "--task-rows", "2"]
    assert main([str(word) for word in words]) == 0
    assert RunDirectory.open(only_run(tmp_path)).settings["task_data"] == str(data)
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", str(only_run(tmp_path))]) == 0
    assert "2 rows of each task" in " ".join(capfd.readouterr().out.split())
