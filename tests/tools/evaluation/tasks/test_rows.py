"""Rows that a task cannot be asked with are refused in one sentence, with the file and the line."""

import json

import pytest

from self_pruner.tools.evaluation.tasks.rows import TASKS, TaskDataError, check_files, read_rows
from tests.tools.evaluation.tasks.seven import rows_of, write_tasks


def broken(task, *path, **changes):
    """A line of `task` with fields changed, or left out where the new value is None."""
    row = rows_of(task, 1)[0]
    at = row
    for name in path:
        at = at[name]
    for name, value in changes.items():
        if value is None:
            del at[name]
        else:
            at[name] = value
    return json.dumps(row)


BAD_LINES = {
    "no JSON": ("piqa", "{'goal': 1}", "is not JSON"),
    "no object": ("piqa", "[1, 2]", "is no object"),
    "no question": ("boolq", broken("boolq", question=None), "no field 'question'"),
    "a label of words": ("boolq", broken("boolq", label="yes"), "'label'"),
    "a label out of range": ("piqa", broken("piqa", label=2), "'label'"),
    "an empty choice": ("piqa", broken("piqa", sol2=""), "'sol2'"),
    "no endings": ("hellaswag", broken("hellaswag", endings=None), "no field 'endings'"),
    "an empty ending": ("hellaswag", broken("hellaswag", endings=["a", ""]), "'endings.1'"),
    "the test split, which has no labels": ("hellaswag", broken("hellaswag", label=""), "'label'"),
    "a label beyond the endings": ("hellaswag", broken("hellaswag", label="7"), "none of its 4 endings"),
    "no gap": ("winogrande", broken("winogrande", sentence="Nothing is missing."), "'sentence'"),
    "an answer that is none": ("winogrande", broken("winogrande", answer=""), "'answer'"),
    "choices in another shape": ("arc_easy", broken("arc_easy", choices=["a", "b"]), "'choices'"),
    "labels that are too few": ("arc_challenge", broken("arc_challenge", "choices", label=["A"]), "1 labels"),
    "a key of another question": ("arc_easy", broken("arc_easy", answerKey="E"), "'answerKey' 'E' is none"),
    "no stem": ("openbookqa", broken("openbookqa", question_stem=None), "no field 'question_stem'"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_line_that_is_no_row_is_named(tmp_path, case):
    task, line, said = BAD_LINES[case]
    good = json.dumps(rows_of(task, 1)[0])
    write_tasks(tmp_path, **{task: [good, "", line]})
    with pytest.raises(TaskDataError) as caught:
        read_rows(tmp_path, task, 0)
    sentence = str(caught.value)
    assert f"{task}.jsonl, line 3" in sentence and said in sentence and "\n" not in sentence


def test_lines_beyond_those_asked_for_are_not_read(tmp_path):
    write_tasks(tmp_path, piqa=[json.dumps(rows_of("piqa", 1)[0]), "nonsense"])
    assert len(read_rows(tmp_path, "piqa", 1)) == 1


def test_every_task_gives_the_fields_it_asks_about_and_no_others(tmp_path):
    write_tasks(tmp_path, 4)
    for task in TASKS:
        found = read_rows(tmp_path, task, 0)
        assert len(found) == 4
        for row, given in zip(found, rows_of(task, 4), strict=True):
            assert row.items() <= given.items() and "id" not in row and "idx" not in row
        assert read_rows(tmp_path, task, 2) == found[:2]


def test_fewer_rows_than_asked_for_are_counted(tmp_path):
    write_tasks(tmp_path, 4, openbookqa=[])
    with pytest.raises(TaskDataError, match="holds 4 rows of piqa and --task-rows asks for 5: .*or 0 for all"):
        read_rows(tmp_path, "piqa", 5)
    with pytest.raises(TaskDataError, match="openbookqa.jsonl holds no rows"):
        read_rows(tmp_path, "openbookqa", 0)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    write_tasks(tmp_path)
    (tmp_path / "boolq.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskDataError, match="boolq.jsonl is not UTF-8"):
        read_rows(tmp_path, "boolq", 0)


def test_a_missing_folder_or_file_is_found_without_reading_any(tmp_path):
    with pytest.raises(TaskDataError, match="there is no such folder"):
        check_files(tmp_path / "nowhere")
    write_tasks(tmp_path, boolq=["nonsense"])
    check_files(tmp_path)
    (tmp_path / "winogrande.jsonl").unlink()
    with pytest.raises(TaskDataError, match="winogrande.jsonl is missing; the folder must have boolq.jsonl, .*"):
        check_files(tmp_path)
    with pytest.raises(TaskDataError, match="winogrande.jsonl cannot be read: No such file"):
        read_rows(tmp_path, "winogrande", 0)
