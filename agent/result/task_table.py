"""The zero-shot table: what each model of the final table does on the seven tasks, and how that is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from self_pruner.agent.result.measure_tasks import (
    CONVENTION,
    Accuracy,
    accuracies,
    failure_on_tasks,
    mean_of_seven,
    measure_tasks,
)
from self_pruner.agent.view import View
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.rows import TASKS, TaskName
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.export.card import CardTasks

if TYPE_CHECKING:  # torch takes seconds to load, and whoever only looks at a table needs none of it
    from self_pruner.tools.workbench import Workbench

TITLES = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "openbookqa": "OBQA",
}


class TaskRow(BaseModel):
    """One model on the seven tasks."""

    model_config = ConfigDict(frozen=True)

    name: str  # as in the final table, or a candidate's id
    tasks: dict[str, Accuracy]  # by task, in the metric that published tables take; those that could be measured
    mean: Accuracy | None  # of seven; None where one of them failed

    @classmethod
    def of(cls, name: str, tasks: Mapping[TaskName, Accuracy]) -> TaskRow:
        """The row of a model with what is known of it."""
        return cls(name=name, tasks=dict(tasks), mean=mean_of_seven(tasks))


class TaskTable(BaseModel):
    """Some models on the same rows of the seven tasks."""

    model_config = ConfigDict(frozen=True)

    rows: list[TaskRow]
    asked: dict[str, int]  # how many rows, by task
    data: dict[str, str]  # a digest of them, by task
    harness: str  # its name and version

    def joined(self, later: TaskTable) -> TaskTable:
        """`later` with the rows of this table that it has not; where other rows were asked, `later` alone."""
        if self.data != later.data:
            return later
        new = {row.name for row in later.rows}
        return later.model_copy(update={"rows": [*(row for row in self.rows if row.name not in new), *later.rows]})

    @property
    def measured_on(self) -> str:
        """What the figures are, in a sentence."""
        counts = sorted(set(self.asked.values()))
        rows = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        return (
            f"Zero-shot accuracy in per cent with one standard error, {self.harness}, {rows} rows of each task; acc or "
            "acc_norm (normalised by length) as in the tables of LLM-Pruner and FLAP."
        )

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: a column a model, a row a task, the mean last."""
        header = ("", *(row.name for row in self.rows))
        tasks = [
            (f"{TITLES[task]} ({CONVENTION[task]})", *(_cell(row.tasks.get(task)) for row in self.rows))
            for task in TASKS
        ]
        return header, [*tasks, ("mean of seven", *(_cell(row.mean) for row in self.rows))]

    def for_card(self) -> CardTasks:
        """The table as text, with what the figures are."""
        header, rows = self.cells()
        return CardTasks(header, tuple(rows), self.measured_on)


def task_table(models: Mapping[str, tuple[Workbench, Profile]], step: int, view: View) -> TaskTable:
    """Measure what is not known yet of some models and put it together.

    Args:
        models: by name, a profile and the workbench on whose elastic model it runs; all have the same tasks.
        step: which step of the run it is.
        view: shows how far it is, and which model failed.

    Raises:
        TaskDataError: the rows of a task cannot be had.
    """
    suite: TaskSuite | None = None
    rows = []
    for name, (bench, profile) in models.items():
        suite = bench.tasks
        with view.phase(f"Tasks, {name}") as progress:
            scores = measure_tasks(replace(bench, progress=progress), profile, step)
        if failure := failure_on_tasks(scores):
            view.warn(f"{name} could not be measured on the tasks: {failure}")
        rows.append(TaskRow.of(name, accuracies(scores)))
    if suite is None:
        raise ValueError("a table needs a model on a workbench with tasks")
    return TaskTable(
        rows=rows,
        asked={task: len(suite.rows(task)) for task in TASKS},
        data={task: suite.digest(task) for task in TASKS},
        harness=suite.harness,
    )


def _cell(found: Accuracy | None) -> str:
    if found is None:
        return "-"
    error = "" if found.standard_error is None else f" ± {100 * found.standard_error:.1f}"
    return f"{100 * found.value:.1f}{error}"
