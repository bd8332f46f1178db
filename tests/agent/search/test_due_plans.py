"""When the brain is asked for a plan: once a generation, where something of it can be tried."""

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Think
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
