"""The surrogate learns which places are dearer than probed, and proposes on budget."""

import random

import pytest
import torch

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles import proposals
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import mutate, uniform
from self_pruner.tools.profiles.sensitivity import Costs, closed_form
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.profiles.surrogate import Surrogate, features, fit

SPACE = Space(n_layers=6, n_groups=4, n_blocks=12, group_params=300, block_params=100, fixed_params=1000, mlp_unit=8)
BUDGET = Budget.from_sparsity(SPACE, 0.3)


def quadratic(units, scale):
    return tuple(scale * ((units - width) / units) ** 2 for width in range(units + 1))


COSTS = Costs(
    tuple(quadratic(4, 0.2 + 0.1 * layer) for layer in range(6)),
    tuple(quadratic(12, 0.3 + 0.05 * layer) for layer in range(6)),
)


def measured(count, weights):
    """Distinct profiles and the fitness they would have if every place's cost were multiplied by `weights`."""
    rng = random.Random(0)
    profiles = {uniform(BUDGET)}
    while len(profiles) < count:
        profiles.add(mutate(BUDGET, rng.choice(sorted(profiles, key=Profile.key)), rng, 3, 2))
    ordered = sorted(profiles, key=Profile.key)
    return ordered, [float(features(COSTS, profile) @ weights) for profile in ordered]


def test_without_measurements_it_believes_the_probes():
    prior = fit(COSTS, [], [])
    assert isinstance(prior, Surrogate) and prior.measured == 0
    profile = uniform(BUDGET)
    assert prior.predict(profile) == pytest.approx(COSTS.total(profile))
    assert closed_form(BUDGET, prior.expected()) == closed_form(BUDGET, COSTS)


def test_it_learns_the_place_that_is_dearer_than_probed():
    weights = torch.ones(12, dtype=torch.float64)
    weights[8] = 4.0  # the MLP of layer 2
    profiles, fitness = measured(60, weights)
    learned = fit(COSTS, profiles, fitness)
    relative = learned.mean / learned.scale
    assert int(relative.argmax()) == 8
    better = closed_form(BUDGET, learned.expected())
    true = features(COSTS, better) @ weights
    assert true < features(COSTS, closed_form(BUDGET, COSTS)) @ weights


def test_it_ranks_profiles_that_it_was_not_fitted_to():
    weights = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    profiles, fitness = measured(80, weights)
    learned = fit(COSTS, profiles[:50], fitness[:50])
    predicted = [learned.predict(profile) for profile in profiles[50:]]
    pairs = [(i, j) for i in range(30) for j in range(i)]
    rest = fitness[50:]
    agree = sum((predicted[i] < predicted[j]) == (rest[i] < rest[j]) for i, j in pairs)
    assert agree / len(pairs) > 0.9


def test_draws_differ_and_are_closer_the_more_is_measured():
    profiles, fitness = measured(60, torch.ones(12, dtype=torch.float64))

    def spread(surrogate):
        rng = random.Random(1)
        totals = [torch.tensor([row[1] for row in surrogate.draw(rng).mlp]) for _ in range(40)]
        return float((torch.stack(totals) / surrogate.scale).std(0).mean())

    assert 0 < spread(fit(COSTS, profiles, fitness)) < spread(fit(COSTS, [], []))


def test_a_fitness_that_is_not_finite_is_refused():
    with pytest.raises(ToolError, match="finite"):
        fit(COSTS, [uniform(BUDGET)], [float("nan")])


@pytest.mark.parametrize("power", [-7, -8, -9, -11, -13, None])
def test_fitness_that_hardly_differs_tells_the_surrogate_nothing_and_is_no_error(power):
    profiles, rng = measured(40, torch.ones(12, dtype=torch.float64))[0], random.Random(0)
    surrogate = fit(COSTS, profiles, [1.0 + (rng.gauss(0.0, 10.0**power) if power else 0.0) for _ in profiles])
    predicted = [surrogate.predict(profile) for profile in profiles]
    assert max(predicted) - min(predicted) < 1e-4
    assert BUDGET.holds(proposals.model(BUDGET, surrogate, uniform(BUDGET), rng))


def test_fitness_that_differs_as_measurements_do_is_taken_as_it_is(monkeypatch):
    profiles, exact = measured(40, torch.ones(12, dtype=torch.float64))
    rng = random.Random(0)
    fitness = [1.0 + 1e-3 * one + rng.gauss(0.0, 1e-5) for one in exact]
    learned = fit(COSTS, profiles, fitness)
    monkeypatch.setattr("self_pruner.tools.profiles.surrogate.LEAST_UNIT", 0.0)
    plain = fit(COSTS, profiles, fitness)
    assert torch.equal(learned.mean, plain.mean) and torch.equal(learned.root, plain.root)


@pytest.mark.parametrize("seed", range(5))
def test_every_operator_of_the_tool_stays_on_budget(seed):
    rng = random.Random(seed)
    parent = uniform(BUDGET)
    surrogate = fit(COSTS, *measured(20, torch.ones(12, dtype=torch.float64)))
    for _ in range(20):
        assert BUDGET.holds(proposals.switch(BUDGET, parent, rng, 3))
        assert BUDGET.holds(proposals.model(BUDGET, surrogate, parent, rng))


def test_a_price_on_moves_keeps_a_draw_near_its_parent():
    parent = uniform(BUDGET)

    def moved(price):
        child = closed_form(BUDGET, proposals.held(COSTS, BUDGET, parent, price))
        return sum(abs(a - b) for a, b in zip(child.mlp, parent.mlp, strict=True))

    assert moved(0.0) > moved(0.3) >= moved(100.0) == 0


def test_a_crossover_takes_some_layers_and_never_all():
    rng = random.Random(0)
    masks = [proposals.mask(6, rng) for _ in range(200)]
    assert all(any(mask) and not all(mask) for mask in masks)
    assert len(set(masks)) > 20


def test_better_parents_are_chosen_more_often_and_all_of_them_sometimes():
    rng = random.Random(0)
    chosen = [proposals.choose_parent(["a", "b", "c"], rng) for _ in range(600)]
    assert chosen.count("a") > chosen.count("b") > chosen.count("c") > 0
