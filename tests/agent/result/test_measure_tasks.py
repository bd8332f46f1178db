"""Accuracies are measured once and recorded task by task; what is put together follows the tables' convention."""

import math
from dataclasses import replace

import pytest

from self_pruner.agent.result.measure_tasks import (
    CONVENTION,
    accuracies,
    failure_on_tasks,
    mean_of_seven,
    measure_tasks,
    task_scores,
)
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import TaskScore
from self_pruner.memory.store import Memory
from self_pruner.tools.evaluation.tasks import harness
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning import smaller_model as smaller
from self_pruner.tools.workbench import Workbench
from tests.tools.evaluation.tasks.seven import write_tasks

STEP = 4


@pytest.fixture
def bench(elastic, suite, tmp_path):
    with Memory(tmp_path / "memory.sqlite", "tiny", {}) as memory:
        yield Workbench(
            elastic=elastic,
            budget=Budget.from_sparsity(elastic.space, 0.3),
            walks={},
            memory=memory,
            run="run",
            seed=0,
            sequence_length=16,
            fidelity=(32, 64),
            tasks=suite,
        )


@pytest.fixture
def asked(monkeypatch):
    """The tasks that the harness was really asked, in order; the harness itself is the real one."""
    told: list[tuple[Profile, str]] = []
    real, really_made = harness.run_task, smaller.smaller_model

    def smaller_model(elastic, profile):
        made = really_made(elastic, profile)
        made.cut_as = profile
        return made

    def run(model, suite, task):
        found = real(model, suite, task)
        told.append((model.model.cut_as, task))
        return found

    monkeypatch.setattr(smaller, "smaller_model", smaller_model)
    monkeypatch.setattr(harness, "run_task", run)
    return told


def test_every_metric_of_every_task_is_recorded_with_its_standard_error(bench):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, dense, STEP)
    scores = task_scores(bench, dense)
    assert {task: set(metrics) for task, metrics in scores.items()} == {task: set(METRICS[task]) for task in TASKS}
    for score in bench.memory.recall(TaskScore):
        assert (score.profile, score.rows, score.run, score.step, score.error) == (dense, 3, "run", STEP, None)
        assert score.value * 3 == pytest.approx(round(score.value * 3))
        assert score.standard_error == pytest.approx(math.sqrt(score.value * (1 - score.value) / 2))


def test_what_is_known_is_not_asked_again(bench, asked, tokenizer, folder):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, dense, STEP)
    assert asked == [(dense, task) for task in TASKS]
    measure_tasks(bench, dense, STEP)
    later = replace(bench, run="later", tasks=TaskSuite(tokenizer, folder, 3))
    measure_tasks(later, dense, STEP)
    assert len(asked) == len(TASKS)
    more = replace(bench, tasks=TaskSuite(tokenizer, folder, 4))
    measure_tasks(more, dense, STEP)
    assert len(asked) == 2 * len(TASKS)
    assert {len(task_scores(one, dense)["piqa"]) for one in (bench, more)} == {2}


def test_other_rows_of_the_same_number_are_another_measurement(bench, asked, tokenizer, tmp_path):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, dense, STEP)
    other = write_tasks(tmp_path / "other", 3, boolq=['{"question": "q", "passage": "p", "label": 1}'] * 3)
    measure_tasks(replace(bench, tasks=TaskSuite(tokenizer, other, 3)), dense, STEP)
    assert [task for _, task in asked[len(TASKS) :]] == ["boolq"]


def test_an_evaluation_that_was_killed_goes_on_with_the_task_it_was_at(bench, asked, monkeypatch):
    profiles = [bench.elastic.space.dense(), bench.elastic.space.dense().with_width(0, "mlp", 3)]
    counted = harness.run_task

    def killed(model, suite, task):
        if (model.model.cut_as, task) == (profiles[1], "winogrande"):
            raise KeyboardInterrupt
        return counted(model, suite, task)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "run_task", killed)
        with pytest.raises(KeyboardInterrupt):
            for profile in profiles:
                measure_tasks(bench, profile, STEP)
    assert mean_of_seven(accuracies(task_scores(bench, profiles[1]))) is None
    before = list(asked)
    for profile in profiles:
        measure_tasks(bench, profile, STEP)
    assert asked[len(before) :] == [(profiles[1], task) for task in TASKS[TASKS.index("winogrande") :]]
    assert mean_of_seven(accuracies(task_scores(bench, profiles[1]))) is not None


def test_progress_covers_what_is_left_and_ends_at_its_total(bench):
    told: list[tuple[int, int]] = []
    dense = bench.elastic.space.dense()
    measure_tasks(replace(bench, progress=lambda *step: told.append(step)), dense, STEP)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] and len({total for _, total in told}) == 1
    measure_tasks(replace(bench, progress=lambda *step: told.clear()), dense, STEP)
    assert told


def test_a_model_that_gives_no_numbers_is_a_row_with_its_reason(bench, asked):
    profile = bench.elastic.space.dense().with_width(1, "mlp", 5)
    weight = bench.elastic.model.model.layers[2].mlp.gate_proj.weight
    kept = weight[0].clone()
    try:
        weight[0] = float("nan")
        measure_tasks(bench, profile, STEP)
    finally:
        weight[0] = kept
    scores = task_scores(bench, profile)
    assert failure_on_tasks(scores) == "the logits of the pruned model are not finite"
    assert accuracies(scores) == {} and mean_of_seven({}) is None
    measure_tasks(bench, profile, STEP)
    assert not asked  # it would fail again
    measure_tasks(replace(bench, run="another"), profile, STEP)
    assert failure_on_tasks(task_scores(bench, profile)) is None  # and there it worked


def test_the_mean_of_seven_is_over_the_metrics_of_published_tables():
    values = {task: 0.1 * number for number, task in enumerate(TASKS)}
    profile = Profile((1,), (1,))
    scores = {
        task: {
            metric: TaskScore(profile, task, 9, metric, "d", values[task] if metric == CONVENTION[task] else 0.99,
                              0.07, "r", 1)
            for metric in METRICS[task]
        }
        for task in TASKS
    }  # fmt: skip
    found = mean_of_seven(accuracies(scores))
    assert found.value == pytest.approx(sum(values.values()) / 7)
    assert found.standard_error == pytest.approx(0.07 / math.sqrt(7))
    assert {task for task, metric in CONVENTION.items() if metric == "acc_norm"} == {
        "hellaswag",
        "arc_challenge",
        "openbookqa",
    }
    del scores["piqa"]
    assert mean_of_seven(accuracies(scores)) is None
