"""Task accuracies through the memory: measured once, recorded task by task, put together in the tables' convention.

The tables of LLM-Pruner (Ma et al., arXiv 2305.11627) and FLAP (An et al., arXiv 2312.11983) mix two metrics. LLaMA-7B
in them (BoolQ 73.2, PIQA 78.4, HellaSwag 73.0, WinoGrande 67.0, ARC-e 67.5, ARC-c 41.4, OBQA 42.4) has lm-eval's own
published `acc` on BoolQ (73.1), PIQA (78.2; its acc_norm is 77.4), WinoGrande (66.9) and ARC-e (67.4; its acc_norm is
52.5), and `acc_norm` on HellaSwag (73.0), ARC-c (41.4) and OBQA (42.4). The mean of seven here is of those metrics;
both are recorded wherever a task has both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from self_pruner.memory.profile import Profile
from self_pruner.memory.records import TaskScore
from self_pruner.tools.evaluation.tasks.rows import TASKS, TaskName
from self_pruner.tools.evaluation.tasks.suite import CPU_BATCH, GPU_BATCH, METRICS, TaskSuite

if TYPE_CHECKING:  # torch takes seconds to load, and whoever only looks at a table needs none of it
    from self_pruner.tools.workbench import Workbench

CONVENTION: dict[TaskName, str] = {
    "boolq": "acc",
    "piqa": "acc",
    "hellaswag": "acc_norm",
    "winogrande": "acc",
    "arc_easy": "acc",
    "arc_challenge": "acc_norm",
    "openbookqa": "acc_norm",
}


class Accuracy(BaseModel):
    """Share of right answers."""

    model_config = ConfigDict(frozen=True)

    value: float
    standard_error: float | None  # None for a single row


def measure_tasks(bench: Workbench, profile: Profile, step: int) -> dict[TaskName, dict[str, TaskScore]]:
    """Measure what is not known yet of `profile` on the tasks of `bench` and record it, one task at a time.

    What failed in this run would fail again and is left alone; what failed in another one is tried anew. A model whose
    logits are not finite is a row with its reason.

    Returns:
        All that is known then, by task and metric, failures among it.

    Raises:
        TaskDataError: the rows of a task cannot be had.
    """
    known = task_scores(bench, profile)
    todo = [task for task in TASKS if not _settled(bench, task, known[task].values())]
    if not todo:
        return known
    from self_pruner.tools.evaluation.tasks import harness  # which takes a second to import
    from self_pruner.tools.pruning.smaller_model import smaller_model

    suite = _suite(bench)
    sizes = {task: suite.size(task) for task in todo}
    done = 0

    def tell(part: int, of: int) -> None:
        if bench.progress is not None:
            bench.progress(done + sizes[task] * part // max(1, of), sum(sizes.values()))

    model = harness.AskedModel(
        smaller_model(bench.elastic, profile),
        progress=tell,
        tokenizer=suite.tokenizer,
        batch_size=CPU_BATCH if bench.elastic.device.type == "cpu" else GPU_BATCH,
    )
    for task in todo:
        found: dict[str, tuple[float | None, float | None]] = dict.fromkeys(METRICS[task], (None, None))
        failure = None
        try:
            found.update(harness.run_task(model, suite, task))
        except harness.MeasurementError as fault:
            failure = str(fault)
        asked = (profile, task, len(suite.rows(task)))
        bench.memory.record(
            *(
                TaskScore(*asked, metric, suite.digest(task), *figures, bench.run, step, failure)
                for metric, figures in found.items()
            )
        )
        done += sizes[task]
    return task_scores(bench, profile)


def task_scores(bench: Workbench, profile: Profile) -> dict[TaskName, dict[str, TaskScore]]:
    """What is known of `profile` on the tasks of `bench`: by task and metric, failures among them."""
    suite = _suite(bench)
    return {
        task: {
            score.metric: score
            for score in bench.memory.recall(TaskScore, profile=profile, task=task, data=suite.digest(task))
        }
        for task in TASKS
    }


def accuracies(scores: Mapping[TaskName, Mapping[str, TaskScore]]) -> dict[TaskName, Accuracy]:
    """The accuracy of every task in the tables' convention, where there is one that worked."""
    found = {task: scores.get(task, {}).get(metric) for task, metric in CONVENTION.items()}
    return {
        task: Accuracy(value=score.value, standard_error=score.standard_error)
        for task, score in found.items()
        if score is not None and score.value is not None
    }


def failure_on_tasks(scores: Mapping[TaskName, Mapping[str, TaskScore]]) -> str | None:
    """Why a task could not be measured, or None."""
    errors = (score.error for metrics in scores.values() for score in metrics.values())
    return next((error for error in errors if error), None)


def mean_of_seven(found: Mapping[TaskName, Accuracy]) -> Accuracy | None:
    """The mean accuracy, with a standard error where every task has one.

    None unless all seven tasks are there: a mean over fewer would be of something else.
    """
    if not set(TASKS) <= found.keys():
        return None
    errors = [one.standard_error for one in found.values() if one.standard_error is not None]
    spread = math.sqrt(sum(error**2 for error in errors)) / len(TASKS) if len(errors) == len(TASKS) else None
    return Accuracy(value=sum(one.value for one in found.values()) / len(TASKS), standard_error=spread)


def _suite(bench: Workbench) -> TaskSuite:
    if bench.tasks is None:
        raise ValueError("this workbench has no tasks")
    return bench.tasks


def _settled(bench: Workbench, task: TaskName, scores: Collection[TaskScore]) -> bool:
    """Whether a task needs no measuring: known in every metric, or failed in this run."""
    known = {score.metric for score in scores if not score.error}
    return known >= set(METRICS[task]) or any(score.error and score.run == bench.run for score in scores)
