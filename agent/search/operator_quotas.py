"""Quotas: how many offspring of a generation each maker gets.

Adaptive operator selection by probability matching with a floor (Thierens, GECCO 2005): a maker's credit is the share
of its offspring that survived their generation, pulled towards the common rate while there are few of them, and the
older the weaker. Every maker keeps a floor, so that none is written off for good and each goes on being measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from self_pruner.agent.settings.arms import Maker

FLOOR = 1  # offspring a generation that every maker gets, where there are enough of them
PRIOR = 4.0  # offspring at the common rate that every maker starts with
FORGET = 0.9  # weight of a generation relative to the next one


@dataclass(frozen=True, slots=True)
class Record:
    """What one maker's offspring came to in one generation."""

    made: int
    survived: int


def credit(history: Sequence[Mapping[str, Record]], makers: Sequence[Maker]) -> dict[str, float]:
    """The rate at which each maker's offspring survive, from the generations so far, oldest first."""
    made, survived = dict.fromkeys(makers, 0.0), dict.fromkeys(makers, 0.0)
    for age, generation in enumerate(reversed(history)):
        for maker in makers:
            if maker in generation:
                made[maker] += FORGET**age * generation[maker].made
                survived[maker] += FORGET**age * generation[maker].survived
    total = sum(made.values())
    common = sum(survived.values()) / total if total else 0.5
    return {maker: (survived[maker] + PRIOR * max(common, 0.05)) / (made[maker] + PRIOR) for maker in makers}


def quotas(history: Sequence[Mapping[str, Record]], makers: Sequence[Maker], offspring: int) -> dict[str, int]:
    """Offspring of the next generation by maker: floors first, the rest in proportion to credit; they sum up.

    Args:
        history: by maker, for each generation so far, oldest first.
        makers: who may make offspring; where there are more of them than offspring, the best get one each.
        offspring: how many are wanted.
    """
    if not makers or offspring < 1:
        return dict.fromkeys(makers, 0)
    credits = credit(history, makers)
    best_first = sorted(makers, key=lambda maker: (-credits[maker], makers.index(maker)))
    given: dict[str, int] = dict.fromkeys(makers, 0)
    for maker in best_first[:offspring]:
        given[maker] = FLOOR
    rest = offspring - sum(given.values())
    total = sum(credits.values())
    exact = {maker: rest * credits[maker] / total for maker in makers}
    for maker in makers:
        given[maker] += int(exact[maker])
    remainders = sorted(makers, key=lambda maker: (int(exact[maker]) - exact[maker], makers.index(maker)))
    for maker in remainders[: offspring - sum(given.values())]:
        given[maker] += 1
    return given
