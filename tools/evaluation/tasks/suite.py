"""The seven tasks as lm-eval ships them (Gao et al., the Language Model Evaluation Harness), zero-shot.

Prompts, choices and metrics are the harness's own: its task files are loaded as they are and only their data replaced,
by rows that were checked first. Rows come from a folder of JSON lines, or from the hub where none is given.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.tasks.rows import (
    TASKS,
    Row,
    TaskDataError,
    TaskName,
    check_files,
    checked,
    enough,
    read_rows,
)

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

HARNESS = "lm_eval"
CPU_BATCH, GPU_BATCH = 8, 32  # choices side by side
# Where the harness keeps the files of the seven tasks; looking at all of its folders would take half a minute.
FOLDERS = ("super_glue/boolq", "piqa", "hellaswag", "winogrande", "arc", "openbookqa")
METRICS: dict[TaskName, tuple[str, ...]] = {
    task: ("acc",) if task in ("boolq", "winogrande") else ("acc", "acc_norm") for task in TASKS
}


@dataclass
class TaskSuite:
    """Which rows of the seven tasks are asked; each task is loaded when it is first needed."""

    tokenizer: Any
    folder: Path | None = None  # of <task>.jsonl files; None: the hub
    count: int = 0  # the first so many rows of each task; 0: all of them
    _rows: dict[TaskName, list[Row]] = field(default_factory=dict, repr=False)
    _digests: dict[TaskName, str] = field(default_factory=dict, repr=False)
    _tasks: dict[TaskName, Task] = field(default_factory=dict, repr=False)

    def rows(self, task: TaskName) -> list[Row]:
        """The rows of `task` that are asked.

        Raises:
            TaskDataError: they cannot be had, or are not what the task needs.
        """
        if task not in self._rows:
            self._rows[task] = read_rows(self.folder, task, self.count) if self.folder else self._from_hub(task)
        return self._rows[task]

    def read(self) -> None:
        """Read or fetch the rows of all tasks now, so that nothing can be missing later; raises as `rows` does."""
        if self.folder is not None:
            check_files(self.folder)
        for task in TASKS:
            self.rows(task)

    @property
    def harness(self) -> str:
        """What asks the rows, with its version."""
        return f"lm-eval {version(HARNESS)}"

    def digest(self, task: TaskName) -> str:
        """A name of the rows of `task` and of the harness that asks them: equal where results are comparable."""
        if task not in self._digests:
            asked = json.dumps([version(HARNESS), task, self.rows(task)], sort_keys=True)
            self._digests[task] = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return self._digests[task]

    def size(self, task: TaskName) -> int:
        """Characters of the rows of `task`: what asking them costs, roughly."""
        return len(json.dumps(self.rows(task)))

    def task(self, name: TaskName) -> Task:
        """The harness's task on those rows."""
        if name not in self._tasks:
            rows = self.rows(name)
            with silent():
                from datasets import Dataset

                asked = Dataset.from_list(rows)
                # as if they were the validation split: three of the tasks would read a test split otherwise
                splits = {"training_split": None, "validation_split": "validation", "test_split": None}
                data = {"custom_dataset": lambda **_: {"validation": asked}, **splits}
                self._tasks[name] = self._load(name, {**data, "num_fewshot": 0})
        return self._tasks[name]

    @cached_property
    def _manager(self) -> TaskManager:
        import lm_eval.tasks

        root = Path(lm_eval.tasks.__file__).parent
        return lm_eval.tasks.TaskManager(include_path=[root / name for name in FOLDERS], include_defaults=False)

    def _load(self, name: TaskName, changes: Mapping[str, Any]) -> Task:
        # a group of one: only inside a group may a task of the harness be named and changed at once
        group = {"group": "zero_shot", "task": [{"task": name, **changes}]}
        tasks: dict[str, Task] = self._manager.load([group])["tasks"]
        if set(tasks) != {name}:
            raise MeasurementError(f"{HARNESS} {version(HARNESS)} does not ship the task {name!r}")
        return tasks[name]

    def _from_hub(self, name: TaskName) -> list[Row]:
        """The rows that the shipped task evaluates, fetched or from the hub's cache."""
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HTTPError

        where = f"the hub's data set of {name}"
        try:
            with silent():
                # without its training split the harness makes no pool of examples, which zero-shot has no use for
                task = self._load(name, {"training_split": None, "num_fewshot": 0})
                documents = task.test_docs() if task.has_test_docs() else task.validation_docs()
                found = documents.select(range(min(self.count or len(documents), len(documents)))).to_list()
        except (DatasetsError, HTTPError, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise TaskDataError(
                f"{where} cannot be had: {reason}; give --task-data, a folder with {', '.join(TASKS)} as .jsonl files"
            ) from error
        enough(name, len(found), self.count, where)
        return [checked(name, row, f"{where}, row {number}") for number, row in enumerate(found, start=1)]


@contextmanager
def silent() -> Iterator[None]:
    """Nothing of the harness and its libraries on the screen: progress is ours to show."""
    import datasets

    from self_pruner.tools.models.quiet import quiet

    harness, bars = logging.getLogger(HARNESS), datasets.is_progress_bar_enabled()
    library = logging.getLogger("datasets")
    before, library_before = harness.level, library.level
    harness.setLevel(logging.ERROR)
    library.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # the harness's bars obey no setting
            yield
    finally:
        harness.setLevel(before)
        library.setLevel(library_before)
        if bars:
            datasets.enable_progress_bars()
