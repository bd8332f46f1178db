"""Both budgets at once, against tables whose times are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from self_pruner.memory.profile import PARTS
from self_pruner.tools.latency.joint_budget import JointBudget
from self_pruner.tools.latency.table import LatencyTable
from self_pruner.tools.latency.time_budget import NANOSECONDS, TimedSpace
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError
from self_pruner.tools.profiles.operators import level_switch, mutate, random_profile, uniform
from self_pruner.tools.profiles.sensitivity import Costs, closed_forms
from tests.tools.latency.test_time_budget import SPACE, TABLES, milliseconds, profiles


def joint(params: int, target: float, of: LatencyTable) -> JointBudget:
    return JointBudget(SPACE, params, TimedSpace(SPACE, of), round(NANOSECONDS * target))


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(profile=profiles, seed=st.integers(0, 1000))
def test_both_budgets_are_met_at_once(profile, seed):
    params = Budget.from_sparsity(SPACE, 0.3).target_params
    free = [milliseconds(TABLES["linear"], random_profile(Budget(SPACE, params), random.Random(n))) for n in range(20)]
    limit = sorted(free)[4]  # a fifth of random profiles are so fast
    budget, rng = joint(params, limit, TABLES["linear"]), random.Random(seed)
    parent = random_profile(budget, rng)
    for one in (
        budget.project(profile.attention, profile.mlp).profile,
        parent,
        uniform(budget),
        level_switch(budget, parent, rng, 2),
        mutate(budget, parent, rng, 2, 2),
    ):
        assert budget.holds(one) and Budget(SPACE, params).holds(one)
        assert milliseconds(TABLES["linear"], one) <= limit * 1.0026


def test_budgets_that_contradict_each_other_say_what_would_go():
    with pytest.raises(ImpossibleTargetError, match="contradict each other: with 2,700 parameters") as caught:
        joint(2700, 85.0, TABLES["linear"])
    assert "a speed-up of" in str(caught.value) and "takes about" in str(caught.value)
    with pytest.raises(ImpossibleTargetError, match="the most that is reachable"):
        joint(2700, 40.0, TABLES["linear"])
    with pytest.raises(ImpossibleTargetError, match="cannot be reached"):
        joint(10, 90.0, TABLES["linear"])


@pytest.mark.parametrize(
    ("name", "params", "limit"), [("cliff", 2100, 86.0), ("crooked", 1900, 90.0), ("steps", 1900, 86.0)]
)
@settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(profile=profiles, seed=st.integers(0, 1000))
def test_the_table_itself_has_every_profile_as_fast_enough(name, params, limit, profile, seed):
    budget, rng = joint(params, limit, TABLES[name]), random.Random(seed)
    parent = random_profile(budget, rng)
    costs = Costs(
        *(tuple(tuple(rng.random() for _ in range(SPACE.units(part) + 1)) for _ in range(6)) for part in PARTS)
    )
    made = [budget.project(profile.attention, profile.mlp).profile, parent, uniform(budget)]
    made += [level_switch(budget, parent, rng, 2), mutate(budget, parent, rng, 2, 2), *closed_forms(budget, costs)]
    for one in made:
        assert budget.holds(one) and Budget(SPACE, params).holds(one)
        assert milliseconds(TABLES[name], one) <= limit * 1.0026


def test_the_fastest_profile_of_a_table_can_be_asked_for():
    budget = joint(1900, 99.0, TABLES["cliff"])
    fastest = min(map(budget._least, budget.plain.totals)) / NANOSECONDS
    found = uniform(joint(1900, fastest, TABLES["cliff"]))
    assert milliseconds(TABLES["cliff"], found) <= fastest * 1.0026
    with pytest.raises(ImpossibleTargetError, match="contradict each other|cannot be reached"):
        joint(1900, fastest * 0.99, TABLES["cliff"])
