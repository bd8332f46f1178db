"""When the brain is asked for a plan: once a generation, where something of it can be tried."""

import pytest

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Think
from self_pruner.agent.search.history import closed_generations
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.limits import cost
from self_pruner.tools.evaluation.first_order import PASS_COST
from tests.agent.search.test_planning import plans
from tests.agent.search.test_search import Search


def measures_sensitivities(record):
    return isinstance(record, Act) and bool(record.arguments.get("sensitivities"))


def test_where_no_tokens_are_left_for_sensitivities_the_first_plan_does_not_wait_for_them(tmp_path):
    whole = Search(tmp_path, UniformBrain(seed=3), run="whole")
    whole.go()
    closed = next(one for one in whole.records if one.kind == "judge" and one.generation == 1)
    needed = PASS_COST * whole.settings.sensitivity_tokens + 2 * whole.settings.fidelity[-1]
    assert any(map(measures_sensitivities, whole.records))

    short = Search(tmp_path / "short", UniformBrain(seed=3), tokens=cost(closed.spent) + needed - 1)
    short.go()
    short.assert_valid()
    assert not any(map(measures_sensitivities, short.records))
    assert [record.generation for record in plans(short)][:1] == [1]
    made = {row.proposed_by for row in short.candidates() if row.generation == 1}
    assert "brain" in made and "fallback" not in made
    assert not any(record.fallback for record in short.records if isinstance(record, Think))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A search of two offspring a generation, beside whose steps the others take turns; to be looked at only."""
    run = Search(
        tmp_path_factory.mktemp("few"), UniformBrain(seed=3), offspring=2, population=2, evaluations=28, patience=40
    )
    run.go()
    return run


def test_the_brain_is_asked_only_for_hypotheses_of_which_some_are_tried(few):
    few.assert_valid()
    asked = {one.generation for one in few.records if isinstance(one, Think) and one.replies}
    tried = {row.generation for row in few.candidates() if row.proposed_by == "brain"}
    last = max(row.generation for row in few.candidates())
    assert tried and asked == tried and len(asked) < last


def test_each_operator_has_a_turn_before_the_best_go_first(few):
    made = [{row.proposed_by for row in few.candidates() if row.generation == number} for number in (1, 2)]
    assert set.union(*made) == set(ARMS["hybrid"].vary)
    assert all("model" in generation and len(generation) == 2 for generation in made)


@pytest.mark.parametrize("plan", ["hypotheses,step", "step"])
def test_what_else_is_planned_is_asked_for_in_any_case(tmp_path, plan):
    run = Search(tmp_path, UniformBrain(seed=3), offspring=2, population=2, evaluations=24, patience=40, plan=plan)
    run.go()
    assert [record.generation for record in plans(run)] == list(range(1, len(closed_generations(run.bench))))
