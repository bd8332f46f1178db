"""What a zero-shot table says of itself, and what may stand beside what."""

from self_pruner.agent.result.measure_tasks import Accuracy
from self_pruner.agent.result.task_table import TaskRow, TaskTable
from self_pruner.tools.evaluation.tasks.rows import TASKS


def row(name, value=0.5, error=0.02, without=()):
    tasks = {task: Accuracy(value=value, standard_error=error) for task in TASKS if task not in without}
    return TaskRow(name=name, tasks=tasks, mean=None if without else Accuracy(value=value, standard_error=error))


def table(*rows, data="d", asked=500):
    return TaskTable(
        rows=list(rows),
        asked=dict.fromkeys(TASKS, asked),
        data=dict.fromkeys(TASKS, data),
        harness="lm-eval 1",
    )


def test_rows_of_the_same_questions_stand_together_and_the_later_ones_count():
    joined = table(row("dense"), row("found", 0.1)).joined(table(row("found", 0.9), row("c7")))
    assert [(one.name, one.mean.value) for one in joined.rows] == [("dense", 0.5), ("found", 0.9), ("c7", 0.5)]


def test_rows_of_other_questions_never_stand_together():
    assert table(row("dense"), data="d").joined(table(row("found"), data="e")) == table(row("found"), data="e")


def test_cells_are_per_cent_with_their_error_and_gaps_where_something_failed():
    header, rows = table(row("dense", 0.614, 0.0218), row("single", 1.0, None), row("half", without=("piqa",))).cells()
    assert header == ("", "dense", "single", "half")
    assert rows[0] == ("BoolQ (acc)", "61.4 ± 2.2", "100.0", "50.0 ± 2.0")
    assert rows[1] == ("PIQA (acc)", "61.4 ± 2.2", "100.0", "-")
    assert rows[-1] == ("mean of seven", "61.4 ± 2.2", "100.0", "-")
    assert [name for name, *_ in rows if "acc_norm" in name] == [
        "HellaSwag (acc_norm)",
        "ARC-c (acc_norm)",
        "OBQA (acc_norm)",
    ]


def test_it_says_how_many_rows_were_asked():
    assert "lm-eval 1, 500 rows of each task" in table().measured_on
    full = table().model_copy(update={"asked": {**dict.fromkeys(TASKS, 1172), "openbookqa": 500, "hellaswag": 10042}})
    assert "500 to 10,042 rows of each task" in full.measured_on
