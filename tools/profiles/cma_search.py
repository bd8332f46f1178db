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
FEWEST = 3  # profiles that the package can be told of at once


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
        fitness: of a profile of an earlier generation; None counts as the worst of its generation. The strategy is told
            of generations that are too small for it together.
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
        enough = max(FEWEST, strategy.sp.weights.mu)
        told: list[tuple[Sequence[float], float]] = []
        asked: list[Sequence[float]] = []  # and in no generation yet

        def drawn(size: int) -> list[Sequence[float]]:
            missing = max(size, enough - len(told)) if not asked else size - len(asked)
            if missing > 0:
                asked.extend(strategy.ask(number=missing))
            found = asked[:size]
            del asked[:size]
            return found

        for size in sizes[:-1]:
            generation = drawn(size)
            known = [fitness(projected(budget, shares)) for shares in generation]
            worst = max((value for value in known if value is not None), default=math.inf)
            if math.isfinite(worst):
                told += zip(generation, (worst if value is None else value for value in known), strict=True)
            if not asked and len(told) >= enough:
                strategy.tell(*map(list, zip(*told, strict=True)), check_points=False)
                told.clear()
        return [projected(budget, shares) for shares in drawn(sizes[-1])]
    finally:
        np.random.set_state(state)
