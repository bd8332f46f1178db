"""CMA-ES (Hansen, arXiv 1604.00772) over relaxed profiles, through the `cma` package.

A relaxed profile is the kept share of every place, attention of every layer first; what is asked for is rounded and
projected to the budget. The strategy is not stored: it is told the whole history again each time, from the same seed,
which gives the same next questions and takes milliseconds. So it resumes from whatever the memory holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget

SIGMA = 0.1  # first standard deviation, as a share of a dense width


def relaxed(budget: Budget, profile: Profile) -> list[float]:
    """The kept shares of `profile`: one number between 0 and 1 a place."""
    return [width / budget.space.units(part) for part in PARTS for width in profile.widths(part)]


def projected(budget: Budget, shares: Sequence[float]) -> Profile:
    """The profile on budget nearest to `shares`."""
    layers = budget.space.n_layers
    widths: dict[Part, list[int]] = {}
    for part, start in zip(PARTS, (0, layers), strict=True):
        widths[part] = [round(share * budget.space.units(part)) for share in shares[start : start + layers]]
    return budget.project(widths["attention"], widths["mlp"]).profile


def ask(
    budget: Budget,
    start: Profile,
    sizes: Sequence[int],
    fitness: Callable[[Profile], float | None],
    seed: int,
) -> list[Profile]:
    """The next generation of CMA-ES.

    Args:
        budget: what profiles are projected to.
        start: the mean of the first generation.
        sizes: how many profiles each generation so far asked for, and last how many the next one does.
        fitness: of a profile of an earlier generation; None counts as the worst of its generation.
        seed: of the strategy.

    Returns:
        The profiles of the last generation in `sizes`, which may contain equal ones.
    """
    import cma

    # The package draws from numpy's global generator, whose state is put back afterwards.
    state = np.random.get_state()
    try:
        options = {"seed": seed % (2**31 - 1) + 1, "verbose": -9, "bounds": [0.0, 1.0], "popsize": max(2, sizes[0])}
        strategy = cma.CMAEvolutionStrategy(relaxed(budget, start), SIGMA, options)
        for size in sizes[:-1]:
            asked = strategy.ask(number=size)
            known = [fitness(projected(budget, shares)) for shares in asked]
            worst = max((value for value in known if value is not None), default=math.inf)
            if size >= 2 and math.isfinite(worst):
                strategy.tell(asked, [worst if value is None else value for value in known], check_points=False)
        return [projected(budget, shares) for shares in strategy.ask(number=sizes[-1])]
    finally:
        np.random.set_state(state)
