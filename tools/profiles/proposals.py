"""Proposals: the tool's own operators, each of which makes one profile on budget.

- switch: level switches between any two places, at a step drawn around the current one (EvoPress, arXiv 2410.14649).
- cross: every layer from one of two parents, by a random mask or a run of layers, repaired to the budget.
- model: the exact closed form of a cost table drawn from the surrogate, held to a parent by a price on every unit
  moved, so that one draw changes a few places and another one most of them.
- random: a profile around the uniform one.

All are pure; randomness comes from the generator passed in.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import mutate
from self_pruner.tools.profiles.sensitivity import Costs, closed_form
from self_pruner.tools.profiles.surrogate import Surrogate

SWITCHES = (1, 2, 4)  # level switches of one mutation
PRICES = (0.0, 0.1, 0.3, 1.0)  # on a moved MLP unit's worth of parameters, as shares of the mean marginal cost
PARENT_WEIGHT = 0.6  # every next parent is chosen so much less often than the one before


def switch(budget: Budget, parent: Profile, rng: random.Random, step: int) -> Profile:
    """`parent` after one of `SWITCHES` level switches of about half to twice `step` MLP units."""
    size = max(1, round(step * 2 ** rng.uniform(-1.0, 1.0)))
    return mutate(budget, parent, rng, size, rng.choice(SWITCHES))


def mask(layers: int, rng: random.Random) -> tuple[bool, ...]:
    """Which layers a crossover takes from the second parent: each by a coin, or a run of them; some, never all."""
    if layers < 2:
        return (True,) * layers
    while True:
        if rng.random() < 0.5:
            first, last = sorted(rng.sample(range(layers), 2))
            taken = tuple(first <= layer <= last for layer in range(layers))
        else:
            taken = tuple(rng.random() < 0.5 for _ in range(layers))
        if any(taken) and not all(taken):
            return taken


def model(budget: Budget, surrogate: Surrogate, parent: Profile, rng: random.Random) -> Profile:
    """The closed form of a drawn cost table, held to `parent` by a price drawn from `PRICES`."""
    return closed_form(budget, held(surrogate.draw(rng), budget, parent, rng.choice(PRICES)))


def held(costs: Costs, budget: Budget, parent: Profile, price: float) -> Costs:
    """`costs` with a price on every unit that a place moves from `parent`.

    Args:
        costs: in nats a token.
        budget: weighs attention units against MLP units.
        parent: the profile to stay near.
        price: of an MLP unit's worth of parameters, as a share of what one costs on average between `parent` and dense.
    """
    space = budget.space
    removed = (budget.price(space.dense()) - budget.price(parent)) / budget.unit_price("mlp")
    unit = price * costs.total(parent) / max(removed, 1.0)
    rows: dict[Part, tuple[tuple[float, ...], ...]] = {}
    for part in PARTS:
        weight = unit * budget.unit_price(part) / budget.unit_price("mlp")
        rows[part] = tuple(
            tuple(cost + weight * abs(width - kept) for width, cost in enumerate(costs.row(layer, part)))
            for layer, kept in enumerate(parent.widths(part))
        )
    return Costs(rows["attention"], rows["mlp"])


def choose_parent(population: Sequence[str], rng: random.Random) -> str:
    """One of `population`, best first, the better ones more often."""
    return rng.choices(list(population), [PARENT_WEIGHT**rank for rank in range(len(population))])[0]
