"""The suite asks the harness's own questions about checked rows, from a folder without a network or from the hub."""

import socket

import pytest

from self_pruner.tools.evaluation.tasks.rows import TASKS, TaskDataError
from self_pruner.tools.evaluation.tasks.suite import TaskSuite, silent
from tests.tools.evaluation.tasks.seven import PASSAGE, rows_of, write_tasks

ASKED = {  # (context, continuation) of every choice of the second row: the prompts that published figures rest on
    "boolq": [(f"{PASSAGE}\nQuestion: do glaciers move 1?\nAnswer:", answer) for answer in (" no", " yes")],
    "piqa": [
        ("Question: To keep bread number 1 fresh,\nAnswer:", f" {rows_of('piqa', 2)[1][choice]}")
        for choice in ("sol1", "sol2")
    ],
    "hellaswag": [
        ("Baking: A woman stands in kitchen 1 with a bowl of flour. She", f" {ending}")
        for ending in ("adds water and stirs.", "adds salt. It rises.", "paints the ceiling and sings.", "sleeps.")
    ],
    "winogrande": [
        (f"The trophy 1 does not fit in the suitcase because the {option}", " is too large.")
        for option in ("trophy", "old suitcase")
    ],
    "arc_easy": [
        ("Question: What melts ice 1 times a day?\nAnswer:", f" {text}")
        for text in ("the sun", "a very large glacier", "the moon", "steam")
    ],
    "openbookqa": [
        ("The water of river 1 comes from", f" {text}")
        for text in ("the sun", "a very large glacier", "the moon", "steam")
    ],
}
ASKED["arc_challenge"] = ASKED["arc_easy"]


@pytest.mark.parametrize("task", TASKS)
def test_the_questions_are_the_harnesss_own(suite, task):
    with silent():
        suite.task(task).build_all_requests(limit=None)
    found = [one.args for one in suite.task(task).instances if one.doc_id == 1]
    assert found == ASKED[task]
    assert len({one.doc_id for one in suite.task(task).instances}) == 3


def test_local_rows_need_no_network(tokenizer, folder, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    suite = TaskSuite(tokenizer, folder, 2)
    assert [len(suite.task(task).eval_docs) for task in TASKS] == [2] * len(TASKS)


def test_a_digest_stands_for_the_rows_that_are_asked(tokenizer, tmp_path):
    first = write_tasks(tmp_path / "first", 3)
    same = write_tasks(tmp_path / "same", 5)
    other = write_tasks(tmp_path / "other", 3, boolq=['{"question": "q", "passage": "p", "label": 0}'])
    assert TaskSuite(tokenizer, first, 0).digest("boolq") == TaskSuite(tokenizer, same, 3).digest("boolq")
    assert TaskSuite(tokenizer, first, 2).digest("boolq") != TaskSuite(tokenizer, first, 3).digest("boolq")
    assert TaskSuite(tokenizer, first, 1).digest("boolq") != TaskSuite(tokenizer, other, 1).digest("boolq")
    assert TaskSuite(tokenizer, first, 3).digest("arc_easy") != TaskSuite(tokenizer, first, 3).digest("arc_challenge")


@pytest.fixture
def hub(monkeypatch):
    """The hub's data sets as the harness fetches them, with rows of ours in each split."""
    from datasets import Dataset
    from lm_eval.api import task

    names = {"super_glue": "boolq", "piqa": "piqa", "hellaswag": "hellaswag", "winogrande": "winogrande"}
    names |= {"ARC-Easy": "arc_easy", "ARC-Challenge": "arc_challenge", "openbookqa": "openbookqa"}

    def load(path, name=None, **options):
        own = next(ours for theirs, ours in names.items() if theirs in (path.rpartition("/")[2], name))
        tests = ("test",) if own.startswith(("arc", "openbook")) else ()
        right, wrong = rows_of(own, 4), rows_of(own, 4)[::-1]
        splits = {"train": wrong, "validation": wrong if tests else right, **{split: right for split in tests}}
        return {split: Dataset.from_list(rows) for split, rows in splits.items()}

    monkeypatch.setattr(task.datasets, "load_dataset", load)
    return load


def test_rows_of_the_hub_are_the_same_measurement_as_those_of_a_folder(tokenizer, tmp_path, hub):
    local, online = TaskSuite(tokenizer, write_tasks(tmp_path, 4), 3), TaskSuite(tokenizer, None, 3)
    for task in TASKS:
        assert online.rows(task) == local.rows(task)
        assert online.digest(task) == local.digest(task)
    assert len(TaskSuite(tokenizer, None, 0).rows("openbookqa")) == 4


def test_the_hub_may_have_too_few_rows(tokenizer, hub):
    with pytest.raises(TaskDataError, match="the hub's data set of piqa holds 4 rows of piqa .* asks for 9"):
        TaskSuite(tokenizer, None, 9).rows("piqa")


@pytest.mark.parametrize("kind", ["offline", "unknown", "network"])
def test_a_hub_that_cannot_be_had_points_to_local_files(tokenizer, monkeypatch, kind):
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HTTPError
    from lm_eval.api import task

    fault = {
        "offline": ConnectionError("Couldn't reach 'baber/piqa' on the Hub (OfflineModeIsEnabled)\nand more"),
        "unknown": DatasetNotFoundError("Dataset 'baber/piqa' doesn't exist on the Hub."),
        "network": HTTPError("[Errno -2] Name or service not known"),
    }[kind]

    def fail(*arguments, **options):
        raise fault

    monkeypatch.setattr(task.datasets, "load_dataset", fail)
    with pytest.raises(TaskDataError) as caught:
        TaskSuite(tokenizer, None, 3).rows("piqa")
    assert "the hub's data set of piqa cannot be had" in str(caught.value) and "--task-data" in str(caught.value)
    assert "\n" not in str(caught.value)
