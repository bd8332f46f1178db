"""The surrogate: what is believed of a profile's fitness after all that was measured, and how to propose from it.

The probes give every place a cost curve; were costs to add up, fitness would be their plain sum. They do not, so every
place's curve gets a weight. Bayesian linear regression of the measured fitness on the probe costs of a profile's widths
learns the weights: before any measurement they are all alike, afterwards the places that proved dearer than probed
weigh more. A draw from the posterior makes a new cost table, and the exact closed form of that table is a candidate on
budget that moves many places at once (Thompson sampling; Thompson, Biometrika 25, 1933). The mean of the posterior
screens proposals of other operators.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.profiles.sensitivity import Costs

SCALES = (0.25, 4.0)  # what all weights together may be, before any place differs from the others
SPREADS = (0.1, 0.3, 1.0)  # standard deviations of a place's weight before measurement, as shares of the scale
NOISES = (0.05, 0.2, 0.5, 1.0)  # of a measurement, as shares of the standard deviation of all measurements
LEAST_UNIT = 1e-6  # of that deviation, as a share of the largest cost: what is less is lost in rounding
DEFAULT_SPREAD = 0.3  # where nothing is measured yet
LEAST_WEIGHT = 0.05  # share of the scale below which no weight is drawn: every unit is worth something


@dataclass(frozen=True)
class Surrogate:
    """The posterior of the weights of all places, attention of every layer first, then MLP."""

    costs: Costs
    scale: float  # the mean of the weights before measurement
    mean: Tensor  # [places], float64
    root: Tensor  # [places, places], lower triangular, float64: covariance = root root^T
    measured: int  # profiles it was fitted to

    def predict(self, profile: Profile) -> float:
        """The expected fitness of `profile` in nats a token, up to a constant that is the same for all profiles."""
        return float(features(self.costs, profile) @ self.mean)

    def weighted(self, weights: Tensor) -> Costs:
        """The cost table with every place's curve multiplied by its entry of `weights` [places]."""
        values = weights.tolist()
        layers = len(self.costs.attention)
        rows = {
            part: tuple(
                tuple(weight * cost for cost in self.costs.row(layer, part))
                for layer, weight in enumerate(values[start : start + layers])
            )
            for part, start in zip(PARTS, (0, layers), strict=True)
        }
        return Costs(rows["attention"], rows["mlp"])

    def expected(self) -> Costs:
        """The cost table of the mean weights."""
        return self.weighted(self.mean.clamp_min(LEAST_WEIGHT * self.scale))

    def draw(self, rng: random.Random) -> Costs:
        """A cost table of weights drawn from the posterior."""
        noise = torch.tensor([rng.gauss(0.0, 1.0) for _ in range(len(self.mean))], dtype=torch.float64)
        return self.weighted((self.mean + self.root @ noise).clamp_min(LEAST_WEIGHT * self.scale))


def features(costs: Costs, profile: Profile) -> Tensor:
    """The probe cost of every place's width: [places], attention of every layer first; float64."""
    row = [costs.row(layer, part)[width] for part in PARTS for layer, width in enumerate(profile.widths(part))]
    return torch.tensor(row, dtype=torch.float64)


def fit(costs: Costs, profiles: Sequence[Profile], fitness: Sequence[float]) -> Surrogate:
    """The posterior after `profiles` were measured on the same text; without any it is the prior.

    The common scale is the slope of fitness on the predicted sum; the spread of the weights and the noise of the
    measurements are those of `SPREADS` and `NOISES` under which the measurements are most likely.

    Args:
        costs: the cost table of the probes.
        profiles: distinct profiles.
        fitness: of each, in nats a token.

    Raises:
        ToolError: not one fitness a profile, or one that is not finite.
    """
    if len(profiles) != len(fitness) or not all(map(math.isfinite, fitness)):
        raise ToolError(f"a surrogate needs one finite fitness a profile, got {len(fitness)} for {len(profiles)}")
    places = 2 * len(costs.attention)
    if len(profiles) < 3:  # two points have a slope and no spread
        return Surrogate(
            costs,
            1.0,
            torch.ones(places, dtype=torch.float64),
            DEFAULT_SPREAD * torch.eye(places, dtype=torch.float64),
            len(profiles),
        )
    x = torch.stack([features(costs, profile) for profile in profiles])
    y = torch.tensor(fitness, dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean()
    total = x.sum(1)
    spread_of_total = float(total @ total)
    slope = float(total @ y) / spread_of_total if spread_of_total > 0 else 1.0
    scale = min(max(slope, SCALES[0]), SCALES[1])
    rest = y - scale * total
    unit = max(float(y.std()), LEAST_UNIT * float(x.abs().max()), 1e-12)
    choices = [(scale * spread, unit * noise) for spread in SPREADS for noise in NOISES]
    spread, noise = max(choices, key=lambda choice: _log_likelihood(x, rest, *choice))
    precision = x.T @ x / noise**2 + torch.eye(places, dtype=torch.float64) / spread**2
    lower = torch.linalg.cholesky(precision)
    mean = scale + torch.cholesky_solve((x.T @ rest / noise**2)[:, None], lower).squeeze(1)
    covariance = torch.cholesky_inverse(lower)
    return Surrogate(costs, scale, mean, torch.linalg.cholesky(covariance), len(profiles))


def _log_likelihood(x: Tensor, rest: Tensor, spread: float, noise: float) -> float:
    """Log likelihood of `rest` [n], up to a constant, when weights differ by `spread` and measurements by `noise`."""
    covariance = spread**2 * (x @ x.T) + noise**2 * torch.eye(len(x), dtype=torch.float64)
    lower = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(lower, rest[:, None], upper=False)
    return float(-0.5 * whitened.square().sum() - lower.diagonal().log().sum())
