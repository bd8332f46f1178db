"""The quadratic model: what every width of every place is worth around one profile, and the steps that follow.

The first order is measured there (first_order.py). Of the second order the probes know the diagonal: KL is quadratic
around the dense model, so a place's probe costs are the curvature of its own changes. Changes of several places add up
to more than their own curvatures, by about the same factor wherever they are made; that factor is learned from the
steps taken.
The step of least predicted fitness on budget is an exact closed form, as for the additive costs. So the search is a
damped Newton descent on integers (Levenberg, 1944; Marquardt, 1963), with a trust region, a KV group a unit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.sensitivity import ROUNDING, Costs, closed_forms_around

CURVATURE = 2.5  # before any step: how much more changes of several places cost than each alone
CURVATURES = (1.0, 8.0)  # what may be learned
PRIOR = 0.03  # nats a token of own curvature that the factor's first value counts as
FURTHEST = 8  # one part in so many of a dense width, at least a unit, is as far as a step goes at a place
SPREAD = 0.7  # standard deviation of the logarithm of a drawn factor


class QuadraticModelError(SelfPrunerError):
    """A quadratic model without sensitivities."""


@dataclass(frozen=True)
class QuadraticModel:
    """Change of fitness around `centre`, in nats a token: sensitivities plus `curvature` times that of each place."""

    costs: Costs  # of the probes: their change is the curvature of a place by itself
    centre: Profile
    sensitivities: tuple[Costs, ...]  # at the centre, one table a sequence
    curvature: float = CURVATURE

    def __post_init__(self) -> None:
        """Raises QuadraticModelError without sensitivities."""
        if not self.sensitivities:
            raise QuadraticModelError("a quadratic model needs sensitivities on at least one sequence")

    def terms(self, profile: Profile) -> tuple[float, float]:
        """What is predicted of a step to `profile`, in nats a token: its own curvature, and its sensitivities."""
        return self.second.total(profile), self.first.total(profile)

    @cached_property
    def first(self) -> Costs:
        return _mean(self.sensitivities)

    @cached_property
    def second(self) -> Costs:
        """The own curvature of every width of every place."""
        return _table(
            lambda layer, part: [
                abs(cost - self.costs.row(layer, part)[self.centre.widths(part)[layer]])
                for cost in self.costs.row(layer, part)
            ],
            self.centre.n_layers,
        )

    @cached_property
    def expected(self) -> Costs:
        """The cost of every width of every place; add up what a profile's widths cost to predict its fitness."""
        return self._combined(self.first, self.curvature)

    def predict(self, profile: Profile) -> float:
        """The predicted fitness of `profile` less that of the centre, in nats a token."""
        return self.expected.total(profile)

    def step(self, budget: Budget) -> Profile:
        """The profile on budget of least predicted fitness within the trust region; the centre where none is better."""
        return self._least(budget, self.expected)

    def draw(self, budget: Budget, rng: random.Random) -> Profile:
        """The same by sensitivities of resampled sequences (a bootstrap) and a factor drawn around the curvature's."""
        resampled = _mean(rng.choices(self.sensitivities, k=len(self.sensitivities)))
        drawn = self._combined(resampled, self.curvature * math.exp(rng.gauss(0.0, SPREAD)))
        return self._least(budget, drawn)

    def _least(self, budget: Budget, costs: Costs) -> Profile:
        """The first of the cheapest within the trust region that is not worse than the centre once it is settled.

        What a budget in time settles may be: then the next best division between the parts is tried.
        """
        for found in closed_forms_around(budget, self._trusted(budget, costs), self.centre):
            settled = budget.settle(found)
            if found == self.centre or settled != self.centre and self._is_no_worse(settled, costs):
                return settled
        return self.centre

    def _is_no_worse(self, profile: Profile, costs: Costs) -> bool:
        return costs.total(profile) <= costs.total(self.centre) + ROUNDING

    def _combined(self, first: Costs, curvature: float) -> Costs:
        second = self.second
        return _table(
            lambda layer, part: [
                one + curvature * two for one, two in zip(first.row(layer, part), second.row(layer, part), strict=True)
            ],
            self.centre.n_layers,
        )

    def _trusted(self, budget: Budget, costs: Costs) -> Costs:
        """`costs`, infinite where a place would move too far from the centre."""

        def row(layer: int, part: Part) -> list[float]:
            furthest = max(1, budget.space.units(part) // FURTHEST)
            kept = self.centre.widths(part)[layer]
            return [
                cost if abs(width - kept) <= furthest else math.inf for width, cost in enumerate(costs.row(layer, part))
            ]

        return _table(row, self.centre.n_layers)


def learned_curvature(steps: Sequence[tuple[float, float, float]]) -> float:
    """The factor under which the predictions of steps fit best what was measured, by ridge regression.

    Args:
        steps: the two `QuadraticModel.terms` of each, and its measured change of fitness, in nats a token.
    """
    explained, weight = CURVATURE * PRIOR**2, PRIOR**2
    for own, sensitivity, change in steps:
        explained += own * (change - sensitivity)
        weight += own**2
    return min(max(explained / weight, CURVATURES[0]), CURVATURES[1])


def _mean(tables: Sequence[Costs]) -> Costs:
    layers = len(tables[0].attention)
    return _table(
        lambda layer, part: [fmean(cost) for cost in zip(*(table.row(layer, part) for table in tables), strict=True)],
        layers,
    )


def _table(row: Callable[[int, Part], Sequence[float]], layers: int) -> Costs:
    rows = {part: tuple(tuple(row(layer, part)) for layer in range(layers)) for part in PARTS}
    return Costs(rows["attention"], rows["mlp"])
