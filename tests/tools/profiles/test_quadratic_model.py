"""Local costs: nothing at their centre, and steps that are exactly the best on budget within the trust region."""

import itertools
import random
from dataclasses import replace

import pytest

from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import mutate, uniform
from self_pruner.tools.profiles.quadratic_model import (
    CURVATURE,
    CURVATURES,
    QuadraticModel,
    QuadraticModelError,
    learned_curvature,
)
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.profiles.space import Space

SPACE = Space(n_layers=3, n_groups=4, n_blocks=16, group_params=250, block_params=100, fixed_params=1000, mlp_unit=8)
BUDGET = Budget.from_sparsity(SPACE, 0.3)
CENTRE = mutate(BUDGET, uniform(BUDGET), random.Random(1), 2, 3)
REACH = {"attention": 1, "mlp": 2}  # an eighth of the dense width, at least a unit


def table(row):
    """Costs whose row of every place is `row(layer, part)`."""
    return Costs(*(tuple(tuple(row(layer, part)) for layer in range(SPACE.n_layers)) for part in PARTS))


def probed(scale=1.0):
    def row(layer, part):
        units = SPACE.units(part)
        return [scale * (0.2 + 0.1 * layer) * ((units - width) / units) ** 2 for width in range(units + 1)]

    return table(row)


def tilted(rng, scale):
    """Random sensitivities at the centre, of either sign."""

    def row(layer, part):
        kept, tilt = CENTRE.widths(part)[layer], rng.gauss(0.0, scale)
        return [tilt * (width - kept) * rng.uniform(0.8, 1.2) for width in range(SPACE.units(part) + 1)]

    return table(row)


def quadratic_model(seed=0, scale=0.02, sequences=4, **settings):
    rng = random.Random(seed)
    return QuadraticModel(probed(), CENTRE, tuple(tilted(rng, scale) for _ in range(sequences)), **settings)


def near():
    """Every profile on budget in which no place is further from the centre than it may move."""
    ranges = [
        range(max(1, kept - REACH[part]), min(SPACE.units(part), kept + REACH[part]) + 1)
        for part in PARTS
        for kept in CENTRE.widths(part)
    ]
    profiles = [Profile(widths[:3], widths[3:]) for widths in itertools.product(*ranges)]
    return [profile for profile in profiles if BUDGET.holds(profile)]


NEAR = near()


def test_the_centre_costs_nothing_and_what_is_predicted_adds_up_over_places():
    local = quadratic_model()
    assert local.predict(CENTRE) == 0.0
    other = CENTRE.with_width(0, "mlp", CENTRE.mlp[0] - 1)
    both = other.with_width(1, "attention", 1 + CENTRE.attention[1] % 4)
    alone = both.with_width(0, "mlp", CENTRE.mlp[0])
    assert local.predict(both) == pytest.approx(local.predict(other) + local.predict(alone))


def test_a_place_costs_its_mean_sensitivity_and_the_change_of_its_probe_costs_in_either_direction():
    local = quadratic_model(curvature=3.0)
    kept = CENTRE.mlp[2]
    for width in (kept - 2, kept + 1):
        sensitivity = sum(costs.mlp[2][width] for costs in local.sensitivities) / 4
        own = abs(local.costs.mlp[2][width] - local.costs.mlp[2][kept])
        assert local.predict(CENTRE.with_width(2, "mlp", width)) == pytest.approx(sensitivity + 3.0 * own)


@pytest.mark.parametrize("scale", [0.005, 0.02, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_step_is_the_best_on_budget_of_all_that_are_near_enough(seed, scale):
    local = quadratic_model(seed, scale)
    step = local.step(BUDGET)
    assert step in NEAR
    assert local.predict(step) == pytest.approx(min(map(local.predict, NEAR)), abs=1e-12)
    assert scale < 0.5 or step != CENTRE


def test_without_any_sensitivity_it_stays_at_the_centre():
    assert quadratic_model(scale=0.0).step(BUDGET) == CENTRE


def test_a_step_from_the_end_of_a_range_stays_within_it():
    kept = Budget(SPACE, SPACE.params(SPACE.dense()))
    local = replace(quadratic_model(), centre=SPACE.dense())
    assert local.step(kept) == SPACE.dense()


def test_more_curvature_makes_a_shorter_step():
    own = []
    for curvature in (0.0, 1.0, 4.0, 100.0):
        local = quadratic_model(curvature=curvature)
        own.append(local.second.total(local.step(BUDGET)))
    assert own == sorted(own, reverse=True)
    assert own[0] > own[-1] == 0.0


def test_draws_are_near_and_on_budget_and_follow_from_the_generator():
    local = quadratic_model()
    draws = [local.draw(BUDGET, random.Random(seed)) for seed in range(12)]
    assert draws == [local.draw(BUDGET, random.Random(seed)) for seed in range(12)]
    assert set(draws) <= set(NEAR)
    assert len(set(draws)) > 1


def test_sequences_that_agree_leave_only_the_curvature_to_draw():
    def steps_and_draws(local):
        steps = {replace(local, curvature=CURVATURE * 1.1**power).step(BUDGET) for power in range(-25, 25)}
        return steps, {local.draw(BUDGET, random.Random(seed)) for seed in range(20)}

    alone = quadratic_model(sequences=1)
    steps, draws = steps_and_draws(replace(alone, sensitivities=alone.sensitivities * 4))
    assert len(draws) > 1 and draws <= steps
    steps, draws = steps_and_draws(quadratic_model())
    assert not draws <= steps


def test_without_sensitivities_there_is_no_quadratic_model():
    with pytest.raises(QuadraticModelError, match="at least one sequence"):
        QuadraticModel(probed(), CENTRE, ())


# --- the curvature ------------------------------------------------------------------------------------------------


def steps(factor, scale=1.0):
    """What steps would have measured if curvature were `factor`, with probe costs `scale` times as high."""
    local = replace(quadratic_model(scale=0.5), costs=probed(scale))
    taken = random.Random(0).sample(NEAR, 20)
    return [(*local.terms(step), local.first.total(step) + factor * local.second.total(step)) for step in taken]


@pytest.mark.parametrize("factor", [1.4, 2.5, 6.0])
def test_the_factor_of_the_steps_taken_is_learned(factor):
    assert learned_curvature(steps(factor)) == pytest.approx(factor, rel=0.02)


def test_without_steps_it_is_what_is_known_beforehand_and_short_ones_hardly_change_it():
    assert learned_curvature([]) == CURVATURE
    short = learned_curvature(steps(6.0, scale=0.01))
    assert CURVATURE < short < CURVATURE + 0.5


@pytest.mark.parametrize(("factor", "learned"), [(-3.0, CURVATURES[0]), (0.2, CURVATURES[0]), (50.0, CURVATURES[1])])
def test_it_stays_within_its_bounds(factor, learned):
    assert learned_curvature(steps(factor)) == learned
