"""The rows of the seven tasks in the hub's field names, checked before anything is computed from them.

A row keeps the fields that its task asks about and no others, so the same questions are the same measurement whether
they came from the hub or from a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from self_pruner.memory.errors import SelfPrunerError

TaskName = Literal["boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
Text = Annotated[str, StringConstraints(min_length=1)]
Row = dict[str, Any]


class TaskDataError(SelfPrunerError):
    """The rows of a task cannot be had, or are not what the task needs."""


class _Fields(BaseModel):
    """What a task reads of a row; anything else in it is dropped."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _BoolQ(_Fields):
    question: Text
    passage: Text
    label: Literal[0, 1]


class _PIQA(_Fields):
    goal: Text
    sol1: Text
    sol2: Text
    label: Literal[0, 1]


class _HellaSwag(_Fields):
    activity_label: str
    ctx_a: str
    ctx_b: str
    endings: Annotated[list[Text], Field(min_length=2)]
    label: Annotated[str, StringConstraints(pattern=r"^\d$")]

    @model_validator(mode="after")
    def _answerable(self) -> _HellaSwag:
        if int(self.label) >= len(self.endings):
            raise ValueError(f"'label' {self.label!r} is none of its {len(self.endings)} endings")
        return self


class _WinoGrande(_Fields):
    sentence: Annotated[str, StringConstraints(pattern=r"_[^\n]*\S")]
    option1: Text
    option2: Text
    answer: Literal["1", "2"]


class _Choices(_Fields):
    text: Annotated[list[Text], Field(min_length=2)]
    label: list[Text]


class _Exam(_Fields):
    choices: _Choices
    answerKey: Text  # noqa: N815 - the hub's name

    @model_validator(mode="after")
    def _answerable(self) -> _Exam:
        if len(self.choices.label) != len(self.choices.text):
            raise ValueError(f"it has {len(self.choices.text)} choices and {len(self.choices.label)} labels")
        if self.answerKey not in self.choices.label:
            raise ValueError(f"'answerKey' {self.answerKey!r} is none of its labels {', '.join(self.choices.label)}")
        return self


class _ARC(_Exam):
    question: Text


class _OpenBookQA(_Exam):
    question_stem: Text


_KINDS: dict[TaskName, type[_Fields]] = {
    "boolq": _BoolQ,
    "piqa": _PIQA,
    "hellaswag": _HellaSwag,
    "winogrande": _WinoGrande,
    "arc_easy": _ARC,
    "arc_challenge": _ARC,
    "openbookqa": _OpenBookQA,
}


def file_of(folder: Path, task: TaskName) -> Path:
    """Where the rows of `task` are in a folder of local data."""
    return folder / f"{task}.jsonl"


def check_files(folder: Path) -> None:
    """Find a missing folder or file before anything is loaded.

    Raises:
        TaskDataError: names the first one.
    """
    if not folder.is_dir():
        raise TaskDataError(f"--task-data {folder}: there is no such folder")
    for task in TASKS:
        if not file_of(folder, task).is_file():
            needed = ", ".join(f"{name}.jsonl" for name in TASKS)
            raise TaskDataError(f"--task-data {folder}: {task}.jsonl is missing; the folder must have {needed}")


def read_rows(folder: Path, task: TaskName, count: int) -> list[Row]:
    """The first `count` rows of `task` in a folder of JSON lines, all of them where `count` is 0.

    Raises:
        TaskDataError: no such file, a line that is no row of this task, or fewer rows than asked for.
    """
    path = file_of(folder, task)
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.strip():
                    continue
                try:
                    found = json.loads(line)
                except json.JSONDecodeError as error:
                    raise TaskDataError(f"{path}, line {number} is not JSON: {error.msg}") from error
                rows.append(checked(task, found, f"{path}, line {number}"))
                if len(rows) == count:
                    return rows
    except OSError as error:
        raise TaskDataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskDataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    enough(task, len(rows), count, str(path))
    return rows


def enough(task: TaskName, found: int, count: int, where: str) -> None:
    """Refuse to call `found` rows the first `count` of a task.

    Raises:
        TaskDataError: there are fewer, or none at all.
    """
    if not found:
        raise TaskDataError(f"{where} holds no rows of {task}")
    if found < count:
        raise TaskDataError(
            f"{where} holds {found} rows of {task} and --task-rows asks for {count}: give at most {found}, or 0 for all"
        )


def checked(task: TaskName, row: object, where: str) -> Row:
    """The fields of `row` that `task` reads.

    Raises:
        TaskDataError: one is missing or of the wrong kind; names the place and the field.
    """
    if not isinstance(row, Mapping):
        raise TaskDataError(f"{where} is no object, but a row of {task} is one")
    try:
        return _KINDS[task].model_validate(dict(row)).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            said = f"has no field {field!r}"
        elif field:
            said = f"has a bad {field!r}: {reason}, got {_short(fault['input'])}"
        else:
            said = f"cannot be answered: {reason}"
        raise TaskDataError(f"{where} is no row of {task}: it {said}") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
