"""Accuracies are measured once and recorded task by task; what is put together follows the tables' convention."""

import json
import math
from dataclasses import replace

import pytest
from langchain_core.messages import AIMessage
from langgraph.prebuilt import ToolNode

from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, TaskScore
from self_pruner.memory.store import Memory
from self_pruner.tools.evaluate import evaluate_tool
from self_pruner.tools.evaluation.tasks import harness
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite
from self_pruner.tools.measure_tasks import (
    CONVENTION,
    accuracies,
    failure_on_tasks,
    mean_of_seven,
    measure_tasks,
    task_scores,
)
from self_pruner.tools.profiles.budget import Budget
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
    real = harness.run_task

    def run(elastic, profile, suite, task, progress=None):
        found = real(elastic, profile, suite, task, progress)
        told.append((profile, task))
        return found

    monkeypatch.setattr(harness, "run_task", run)
    return told


def test_every_metric_of_every_task_is_recorded_with_its_standard_error(bench):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, [dense], STEP)
    scores = task_scores(bench, dense)
    assert {task: set(metrics) for task, metrics in scores.items()} == {task: set(METRICS[task]) for task in TASKS}
    for score in bench.memory.recall(TaskScore):
        assert (score.profile, score.rows, score.run, score.step, score.error) == (dense, 3, "run", STEP, None)
        assert score.value * 3 == pytest.approx(round(score.value * 3))
        assert score.standard_error == pytest.approx(math.sqrt(score.value * (1 - score.value) / 2))


def test_what_is_known_is_not_asked_again(bench, asked, tokenizer, folder):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, [dense, dense], STEP)
    assert asked == [(dense, task) for task in TASKS]
    measure_tasks(bench, [dense], STEP)
    later = replace(bench, run="later", tasks=TaskSuite(tokenizer, folder, 3))
    measure_tasks(later, [dense], STEP)
    assert len(asked) == len(TASKS)
    more = replace(bench, tasks=TaskSuite(tokenizer, folder, 4))
    measure_tasks(more, [dense], STEP)
    assert len(asked) == 2 * len(TASKS)
    assert {len(task_scores(one, dense)["piqa"]) for one in (bench, more)} == {2}


def test_other_rows_of_the_same_number_are_another_measurement(bench, asked, tokenizer, tmp_path):
    dense = bench.elastic.space.dense()
    measure_tasks(bench, [dense], STEP)
    other = write_tasks(tmp_path / "other", 3, boolq=['{"question": "q", "passage": "p", "label": 1}'] * 3)
    measure_tasks(replace(bench, tasks=TaskSuite(tokenizer, other, 3)), [dense], STEP)
    assert [task for _, task in asked[len(TASKS) :]] == ["boolq"]


def test_an_evaluation_that_was_killed_goes_on_with_the_task_it_was_at(bench, asked, monkeypatch):
    profiles = [bench.elastic.space.dense(), bench.elastic.space.dense().with_width(0, "mlp", 3)]
    counted = harness.run_task

    def killed(elastic, profile, suite, task, progress=None):
        if (profile, task) == (profiles[1], "winogrande"):
            raise KeyboardInterrupt
        return counted(elastic, profile, suite, task, progress)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "run_task", killed)
        with pytest.raises(KeyboardInterrupt):
            measure_tasks(bench, profiles, STEP)
    assert mean_of_seven(accuracies(task_scores(bench, profiles[1]))) is None
    before = list(asked)
    measure_tasks(bench, profiles, STEP)
    assert asked[len(before) :] == [(profiles[1], task) for task in TASKS[TASKS.index("winogrande") :]]
    assert mean_of_seven(accuracies(task_scores(bench, profiles[1]))) is not None


def test_progress_covers_what_is_left_and_ends_at_its_total(bench):
    told: list[tuple[int, int]] = []
    dense = bench.elastic.space.dense()
    measure_tasks(replace(bench, progress=lambda *step: told.append(step)), [dense], STEP)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] and len({total for _, total in told}) == 1
    measure_tasks(replace(bench, progress=lambda *step: told.clear()), [dense], STEP)
    assert told


def test_a_model_that_gives_no_numbers_is_a_row_with_its_reason(bench, asked):
    profile = bench.elastic.space.dense().with_width(1, "mlp", 5)
    weight = bench.elastic.model.model.layers[2].mlp.gate_proj.weight
    kept = weight[0].clone()
    try:
        weight[0] = float("nan")
        measure_tasks(bench, [profile], STEP)
    finally:
        weight[0] = kept
    scores = task_scores(bench, profile)
    assert failure_on_tasks(scores) == "the logits of the pruned model are not finite"
    assert accuracies(scores) == {} and mean_of_seven({}) is None
    measure_tasks(bench, [profile], STEP)
    assert not asked  # it would fail again
    measure_tasks(replace(bench, run="another"), [profile], STEP)
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


def call(bench, **arguments):
    """Calls `evaluate` as the graph does; returns what it answers, or the sentence it refuses with."""
    from langgraph.graph import END, START, StateGraph

    from self_pruner.agent.search.graph import tool_error
    from self_pruner.agent.search.state import SearchState, first_state

    graph = StateGraph(SearchState)
    graph.add_node("act", ToolNode([evaluate_tool(bench)], handle_tool_errors=tool_error))
    graph.add_edge(START, "act")
    graph.add_edge("act", END)
    spoken = AIMessage(
        content="", tool_calls=[{"name": "evaluate", "args": arguments, "id": "s1.0", "type": "tool_call"}]
    )
    state = {**first_state(["c1", "c2"], 0), "step": 1, "messages": [spoken]}
    return str(graph.compile().invoke(state)["messages"][-1].content)


@pytest.fixture
def candidates(bench):
    dense = bench.elastic.space.dense()
    for number, profile in enumerate([dense.with_width(0, "mlp", 4), dense.with_width(2, "attention", 1)], start=1):
        bench.memory.record(Candidate("run", f"c{number}", profile, (), "initialise", "seed", 0, 0, 0, 0, 1, ""))
    return ["c1", "c2"]


def test_tasks_are_a_fidelity_of_evaluate(bench, candidates):
    answer = json.loads(call(bench, candidates=candidates, fidelity="tasks"))
    assert answer["fidelity"] == "tasks" and answer["charged_tokens"] == 0
    for result in answer["results"]:
        profile = bench.candidate(result["id"]).profile
        assert result["status"] == "ok" and set(result["tasks"]) == set(TASKS)
        assert result["mean_accuracy"] == mean_of_seven(accuracies(task_scores(bench, profile))).value
        for task, metric in CONVENTION.items():
            assert 0 <= result["tasks"][task][metric] <= 1 and "standard_error" in result["tasks"][task]
    best = max(answer["results"], key=lambda result: result["mean_accuracy"])
    assert sorted(result["rank"] for result in answer["results"]) == [1, 2]
    assert best["rank"] == 1 or len({result["mean_accuracy"] for result in answer["results"]}) == 1


def test_without_tasks_that_fidelity_is_refused(bench, candidates):
    plain = replace(bench, tasks=None)
    assert call(plain, candidates=candidates, fidelity="tasks") == "fidelity must be one of 32, 64, got tasks"
    assert call(bench, candidates=candidates, fidelity=7) == "fidelity must be one of 32, 64, tasks, got 7"


def test_rows_that_cannot_be_had_are_a_sentence_for_the_caller(bench, candidates, tokenizer, tmp_path):
    broken = write_tasks(tmp_path / "broken", 3, piqa=["{}"])
    answer = call(replace(bench, tasks=TaskSuite(tokenizer, broken, 1)), candidates=candidates, fidelity="tasks")
    assert "piqa.jsonl, line 1 is no row of piqa: it has no field 'goal'" in answer and "\n" not in answer
