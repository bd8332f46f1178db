"""Selection: who is worth more tokens, who may survive, and whether a child really beats its parent.

All of it is a pure function of ids and scores; lower fitness is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from self_pruner.memory.errors import ToolError


@dataclass(frozen=True, slots=True)
class Paired:
    """A child's fitness less its parent's, sequence by sequence, in nats a token; below zero the child is better."""

    mean: float
    standard_error: float | None  # None for a single sequence, which says nothing about the spread
    n: int


def rank(fitness: Mapping[str, float]) -> list[str]:
    """Ids from best to worst; those without a finite fitness come last, and equals keep the order of their ids."""
    return sorted(
        fitness, key=lambda id: (not math.isfinite(fitness[id]), fitness[id] if math.isfinite(fitness[id]) else 0, id)
    )


def better_half(ranked: Sequence[str]) -> list[str]:
    """The first half of ids ranked best first; the middle one counts as better."""
    return list(ranked[: (len(ranked) + 1) // 2])


def brackets(ranked: Sequence[str], survivors: int, width: int = 2) -> list[list[str]]:
    """For each place among the survivors, the ids one of which may take it.

    The first place belongs to the best alone, so it can't be lost. The next ids by rank, at most `width` a place, are
    split into disjoint runs, so places can be filled independently and no id comes twice. Where ids are short the
    better places have the smaller choice, and there are never more places than ids.

    Args:
        ranked: ids, best first.
        survivors: places wanted, at least 1.
        width: the most ids a place chooses from, at least 1.
    """
    if survivors < 1 or width < 1:
        raise ToolError(f"survivors and width are at least 1, got {survivors} and {width}")
    places = min(survivors, len(ranked)) - 1
    if places < 1:
        return [list(ranked[:1])] if ranked else []
    contenders = ranked[1 : 1 + places * width]
    each, longer = divmod(len(contenders), places)
    slots, start = [list(ranked[:1])], 0
    for place in range(places):
        size = each + (place >= places - longer)
        slots.append(list(contenders[start : start + size]))
        start += size
    return slots


def paired(child: Sequence[float], parent: Sequence[float]) -> Paired:
    """Compare a child with its parent on the same sequences.

    Args:
        child: fitness of each sequence, in nats a token.
        parent: the same of the parent, in the same order.

    Raises:
        ToolError: no sequence, or not the same number.
    """
    if len(child) != len(parent) or not child:
        raise ToolError(f"a paired comparison needs the same sequences, got {len(child)} and {len(parent)}")
    differences = [own - other for own, other in zip(child, parent, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return Paired(fmean(differences), error, len(differences))
