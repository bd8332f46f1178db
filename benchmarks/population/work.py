"""A population to measure, and the work that it asks for: shared by the benchmarks of the walk.

It needs nothing but the tools, so that it runs where little else is installed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from self_pruner.memory.profile import Part, Profile
from self_pruner.tools.evaluation.sharing import path, trie
from self_pruner.tools.models.families import geometry
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import mutate
from self_pruner.tools.pruning.elastic import ElasticModel


def flops(
    elastic: ElasticModel, profiles: Sequence[Profile], length: int, starts: Mapping[Profile, int]
) -> tuple[float, float, float, float]:
    """Multiply-adds a token of the population: alone and sliced, masked, walked, walked from `starts`; with heads."""
    space, shape = elastic.space, geometry(elastic.model.config)

    def cost(part: Part, width: int) -> float:
        scores = shape.group_width * length if part == "attention" else 0  # causal: half of length, for QK and for PV
        return width * (space.unit_params(part) + scores)

    head = len(profiles) * shape.hidden * shape.vocab
    nodes = [node for sublayer in trie(profiles) for node in sublayer]
    needed = [node for sublayer in trie(profiles, starts) for node in sublayer]
    alone = head + sum(node.users * cost(node.part, node.width) for node in nodes)
    masked = head + sum(node.users * cost(node.part, space.units(node.part)) for node in nodes)
    walked, continued = (head + sum(cost(node.part, node.width) for node in some) for some in (nodes, needed))
    return alone, masked, walked, continued


def agreement(profiles: Sequence[Profile], earlier: Sequence[Profile]) -> dict[Profile, int]:
    """Sublayers that each profile has in common with the one of `earlier` that it follows longest."""
    paths = [path(profile) for profile in earlier]

    def common(own: tuple[int, ...], other: tuple[int, ...]) -> int:
        return next((at for at, (a, b) in enumerate(zip(own, other, strict=True)) if a != b), len(own))

    return {profile: max(common(path(profile), other) for other in paths) for profile in profiles}


def generation(budget: Budget, parents: Sequence[Profile], size: int, rng: random.Random) -> list[Profile]:
    """Distinct offspring, one level switch from parents on the budget, the parents taken in turn."""
    children: dict[Profile, None] = {}
    while len(children) < size:
        children[mutate(budget, parents[len(children) % len(parents)], rng)] = None
    return list(children)
