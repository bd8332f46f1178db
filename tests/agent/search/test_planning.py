"""Plans: what the brain may decide of a generation, how the tools follow it, and what becomes of its hypotheses."""

import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from self_pruner.agent.brain.schema import sample_call, violations
from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Think
from self_pruner.agent.search.history import SearchHistory, closed_generations
from self_pruner.agent.search.legal_calls import Situation
from self_pruner.agent.search.planning.hypotheses import by_chance, by_rule, legal_shifts, line
from self_pruner.agent.search.planning.plan import Plan, as_stated, plan_schema
from self_pruner.agent.search.planning.shown import lessons_shown
from self_pruner.agent.settings.panels import HYPOTHESES, PLAN_FIELDS
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Lesson
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.shifts import LINE, Hypothesis, Stretch
from self_pruner.tools.profiles.space import Space
from tests.agent.search.test_search import Search
from tests.bench import founded_bench, tiny_settings
from tests.scripted_brains import FailingBrain, ScriptBrain

HERE = Situation(
    space=Space(n_layers=3, n_groups=4, n_blocks=12, group_params=500, block_params=100, fixed_params=10, mlp_unit=8),
    generation=1,
    missing=1,
    fidelity=32,
    survivors=3,
    step=4,
    samples=8,
    take=("attention 0", "mlp 1", "mlp 2"),
    give=("mlp 0", "mlp 1", "attention 2"),
)
HYPOTHESIS = {"take": "mlp 1", "give": "mlp 0", "amount": "much", "expect": "better"}


def parameters(fields=PLAN_FIELDS, here=HERE, timeable=True, note=True):
    tool = plan_schema(fields, here, timeable=timeable, note=note)
    return tool["function"]["parameters"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """One search whose brain decides all of its plans at random, to be looked at only."""
    run = Search(tmp_path_factory.mktemp("planned"), UniformBrain(seed=3), plan="brain", evaluations=30)
    run.state = run.go()
    return run


def plans(run):
    return [record for record in run.records if isinstance(record, Think) and record.plan is not None]


def answers(run, tool):
    return [record for record in run.records if isinstance(record, Act) and record.tool == tool and not record.error]


# The record


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_schema_allows_is_a_plan_that_can_be_followed(seed):
    plan = Plan.model_validate(sample_call(parameters(), random.Random(seed)))
    assert 1 <= len(plan.hypotheses) <= HYPOTHESES
    for one in plan.hypotheses:
        assert one.take in HERE.take and one.give in HERE.give and one.take != one.give


def test_one_shift_is_one_hypothesis_however_often_it_is_stated():
    twice = {
        "hypotheses": [HYPOTHESIS, HYPOTHESIS | {"amount": "some"}, HYPOTHESIS | {"expect": "worse"}],
        "step": "same",
    }
    stated = as_stated(twice)
    assert stated["hypotheses"] == [HYPOTHESIS | {"expect": "worse"}, HYPOTHESIS | {"amount": "some"}]
    assert stated["step"] == "same" and as_stated({"stop": True}) == {"stop": True}


def test_a_plan_that_contradicts_itself_is_not_legal():
    legal = {"hypotheses": [HYPOTHESIS], **{name: False for name in ("measure", "time", "stop")}}
    whole = {**legal, "offspring": "earned", "step": "same", "note": ""}
    assert not violations(parameters(), whole)
    for wrong in (
        {**whole, "hypotheses": [HYPOTHESIS | {"give": "mlp 1"}]},  # to itself
        {**whole, "hypotheses": [HYPOTHESIS | {"take": "mlp 0"}]},  # which cannot be cut
        {**whole, "hypotheses": []},
        {**whole, "hypotheses": [HYPOTHESIS] * 4},
        {**whole, "step": "backwards"},
        {name: value for name, value in whole.items() if name != "stop"},
    ):
        assert violations(parameters(), wrong)
    with pytest.raises(ValidationError):
        Plan.model_validate({"hypotheses": [HYPOTHESIS], "unknown": 1})


def test_only_what_is_asked_for_and_possible_is_in_the_schema():
    assert set(parameters(("step", "time"), timeable=False, note=False)["properties"]) == {"step"}
    assert "hypotheses" not in parameters(here=replace(HERE, take=("mlp 1",), give=("mlp 1",)))["properties"]
    assert set(Plan.model_fields) == {*PLAN_FIELDS, "note"}


def test_a_plan_of_unknown_parts_is_refused_in_a_sentence():
    with pytest.raises(ValidationError, match="'speed' is no part of a plan: give brain, rule or some of hypotheses"):
        tiny_settings(plan="hypotheses,speed")
    with pytest.raises(ValidationError, match="is no part of a plan"):
        tiny_settings(plan="", arm="evolution")
    assert tiny_settings(plan="brain").planned == PLAN_FIELDS
    assert tiny_settings(plan="step, time").planned == ("step", "time")
    assert tiny_settings(plan="rule").planned == tiny_settings(plan="brain", arm="evolution").planned == ()


# The candidates of a hypothesis


def test_a_hypothesis_becomes_a_line_of_sizes_on_budget(tmp_path):
    bench, _ = founded_bench(tmp_path, tiny_settings())
    budget, start = bench.budget, uniform(bench.budget)
    hypothesis = Hypothesis(**HYPOTHESIS)
    made = list(line(budget, "c1", start, [hypothesis], "brain"))
    assert [row["detail"] for row in made] == ["much of mlp 1 to mlp 0"] + [
        f"much of mlp 1 to mlp 0, times {size:g}" for size in LINE[1:]
    ]
    gained = []
    for row in made:
        child = Profile.from_key(row["profile"])
        assert budget.holds(child) and row["parents"] == ["c1"] and row["proposed_by"] == "brain"
        assert child.mlp[1] < start.mlp[1] and child.mlp[0] > start.mlp[0]
        gained.append(child.mlp[0] - start.mlp[0])
    assert gained[2] <= gained[0] < gained[1]


def test_a_shift_that_did_harm_is_not_legal_again_as_long_as_there_are_others():
    every, harmful = legal_shifts(HERE), (("mlp 1", "mlp 0"), ("mlp 2", "mlp 1"))
    here = replace(HERE, harmful=harmful)
    left = legal_shifts(here)
    assert set(every) - set(left) == {one for one in every if (one.take, one.give) in harmful}
    items = parameters(here=here)["properties"]["hypotheses"]["items"]
    assert violations(items, HYPOTHESIS) and not violations(items, HYPOTHESIS | {"give": "attention 2"})
    assert legal_shifts(replace(HERE, harmful=tuple((one.take, one.give) for one in every))) == every


def test_what_has_no_room_makes_nothing(tmp_path):
    bench, _ = founded_bench(tmp_path, tiny_settings())
    start = uniform(bench.budget).with_width(1, "mlp", 1)
    assert not list(line(bench.budget, "c1", start, [Hypothesis(**HYPOTHESIS)], "brain"))


def test_chance_and_rule_state_what_the_brain_may_and_the_rule_the_cheapest(tmp_path):
    bench, _ = founded_bench(tmp_path, tiny_settings())
    start, rng = uniform(bench.budget), random.Random(0)
    every = legal_shifts(HERE)
    assert len(every) == 3 * 8 and all(one.take != one.give for one in every)
    assert set(by_chance(every, rng)) <= set(every)
    assert len({tuple(by_chance(every, random.Random(seed))) for seed in range(20)}) > 10

    def cost(one):
        (own, *_) = line(bench.budget, "c1", start, [one], "rule")
        return bench.costs.total(Profile.from_key(own["profile"]))

    stated = by_rule(bench.budget, bench.costs, start, every, rng)
    assert [cost(one) for one in stated] == sorted(map(cost, every))[:HYPOTHESES]


# In a search


def test_what_clearly_made_candidates_worse_is_not_stated_again(planned):
    lessons = planned.bench.memory.recall(Lesson)
    worse = [row for row in lessons if row.verdict != "unclear" and row.change > 0]
    assert worse
    for row in worse:
        later = [one for one in lessons if one.generation > row.generation]
        assert (row.take, row.give) not in {(one.take, one.give) for one in later}


def test_every_generation_but_the_first_has_a_plan_that_its_candidates_follow(planned):
    planned.assert_valid()
    stated = plans(planned)
    assert [record.generation for record in stated] == list(range(1, len(closed_generations(planned.bench))))
    rows = [row for row in planned.candidates() if row.proposed_by == "brain"]
    assert rows
    by_generation = {record.generation: record.plan["hypotheses"] for record in stated}
    for row in rows:
        hypotheses = [Hypothesis(**one) for one in by_generation[row.generation]]
        assert any(row.detail.startswith(str(one)) for one in hypotheses)


def test_lessons_say_what_was_measured(planned):
    lessons = planned.bench.memory.recall(Lesson)
    assert lessons
    told = [lesson for act in answers(planned, "record_population") for lesson in act.result.get("lessons", [])]
    assert len(told) == len(lessons)
    history = SearchHistory(planned.bench).read()
    for lesson in lessons:
        made = [planned.bench.candidate(name) for name in lesson.evidence]
        assert all(row.generation == lesson.generation for row in made)
        changes = [history.change(row.profile, history.profile(row.parents[0])) for row in made]
        assert any(change == pytest.approx(lesson.change) for change in changes)
        if abs(lesson.change) > lesson.error:
            seen = "better" if lesson.change < 0 else "worse"
            assert lesson.verdict == ("held" if seen == lesson.expected else "failed")
        else:
            assert lesson.verdict == ("held" if lesson.expected == "same" else "unclear")


def test_only_a_shift_that_clearly_did_harm_is_harmful(tmp_path):
    lesson = dict(run="r", generation=1, give="mlp 1", amount="some", evidence=("c1",), params=1, step=1)
    lessons = [
        Lesson(number=number, take=take, expected=expected, verdict=verdict, change=change, error=0.01, **lesson)
        for number, (take, expected, verdict, change) in enumerate(
            [
                ("mlp 2", "same", "held", 0.005),  # within its standard error
                ("mlp 3", "better", "failed", 0.02),
                ("mlp 4", "worse", "held", 0.02),
                ("mlp 5", "worse", "failed", -0.02),
                ("mlp 6", "better", "unclear", 0.005),
            ]
        )
    ]
    bench, _ = founded_bench(tmp_path, tiny_settings(), run="r")
    history = SearchHistory(bench)
    history.lessons = [*lessons, replace(lessons[1], run="earlier", take="mlp 7")]
    assert history.harmful() == (("mlp 3", "mlp 1"), ("mlp 4", "mlp 1"))


def test_lessons_outlive_a_run_and_a_later_one_at_another_budget_sees_them(planned):
    folder = planned.bench.memory.path.parent
    clear = [lesson for lesson in planned.bench.memory.recall(Lesson) if lesson.verdict != "unclear"]
    assert clear
    later = Search(folder, UniformBrain(seed=3), run="later", sparsity=0.2)
    shown = lessons_shown(SearchHistory(later.bench).read())
    assert shown and all(row.earlier and row.sparsity == pytest.approx(0.3, abs=0.02) for row in shown)
    fresh = Search(folder, UniformBrain(seed=3), run="fresh", remembered=0, arm="evolution")
    assert fresh.starting


def script(*said):
    return ScriptBrain(
        replies=[one if isinstance(one, str) else {"name": "plan_generation", "args": one} for one in said]
    )


def test_a_brain_that_fails_to_plan_is_counted_and_the_search_goes_by_rule(tmp_path):
    run = Search(tmp_path, FailingBrain(seed=0, good=1, failure="illegal"), plan="brain")
    state = run.go()
    run.assert_valid()
    assert state.evaluations == 24
    thoughts = [record for record in run.records if isinstance(record, Think)]
    assert any(record.error for record in thoughts) and len(plans(run)) == 1
    assert any(row.proposed_by == "fallback" for row in run.candidates())
    closed = [one.number for one in closed_generations(run.bench)]
    assert len(closed) > 3 and {row.generation for row in run.candidates()} >= set(closed)  # and none of them is empty


def test_by_rule_nobody_is_asked(tmp_path):
    run = Search(tmp_path, script(), plan="rule")
    assert run.go().evaluations == 24
    run.assert_valid()
    assert not plans(run) and not any(isinstance(one, Think) and one.error for one in run.records)
    made = {row.proposed_by for row in run.candidates()}
    assert "rule" in made and "brain" not in made


@pytest.mark.parametrize("measure", [True, False])
def test_what_is_not_to_be_measured_is_not(tmp_path, measure):
    run = Search(tmp_path, script(*[{"measure": measure}] * 40), plan="measure", evaluations=36)
    run.go()
    asked = [one for one in answers(run, "evaluate") if one.arguments.get("sensitivities")]
    assert len(asked) > 1 if measure else len(asked) == 1


def test_the_best_is_timed_where_the_plan_says_so(tmp_path):
    run = Search(tmp_path, script(*[{"time": True}] + [{}] * 40), plan="time")
    run.go()
    (timed,) = answers(run, "benchmark_latency")
    assert timed.arguments["candidate"]
    assert len(plans(run)) >= 1


def test_a_plan_stops_a_search_only_once_it_has_stalled(tmp_path):
    early = Search(tmp_path, script(*[{"stop": True}] * 80), plan="stop", evaluations=400, patience=8, run="early")
    stop = early.go().stop
    assert stop.startswith("the brain's plan was to stop once")
    generations = closed_generations(early.bench)
    assert [one.best for one in generations[-5:]] == [generations[-1].best] * 5  # half of the patience, and the finder
    assert len({one.best for one in generations}) > 1


def test_stretches_name_places_of_the_model():
    for take in HERE.take:
        assert str(Stretch.of(take, 3)) == take
