"""Quotas: how many offspring of a generation each proposer gets.

Adaptive operator selection by probability matching with a floor (Thierens, GECCO 2005): a proposer's credit is the
share of its offspring that survived their generation, pulled towards the common rate while there are few of them, and
the older the weaker. Every proposer keeps a floor: none is written off for good, and each goes on being measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from self_pruner.agent.settings.arms import OffspringProposer

FLOOR = 1  # offspring a generation that every proposer gets, where there are enough of them
PRIOR = 4.0  # offspring at the common rate that every proposer starts with
FORGET = 0.9  # weight of a generation relative to the next one


@dataclass(frozen=True, slots=True)
class Tally:
    """What one proposer's offspring came to in one generation."""

    made: int
    survived: int


def credit(history: Sequence[Mapping[str, Tally]], proposers: Sequence[OffspringProposer]) -> dict[str, float]:
    """The rate at which each proposer's offspring survive, from the generations so far, oldest first."""
    made, survived = dict.fromkeys(proposers, 0.0), dict.fromkeys(proposers, 0.0)
    for age, generation in enumerate(reversed(history)):
        for proposer in proposers:
            if proposer in generation:
                made[proposer] += FORGET**age * generation[proposer].made
                survived[proposer] += FORGET**age * generation[proposer].survived
    total = sum(made.values())
    common = sum(survived.values()) / total if total else 0.5
    return {
        proposer: (survived[proposer] + PRIOR * max(common, 0.05)) / (made[proposer] + PRIOR) for proposer in proposers
    }


def takes_turns(
    proposers: Sequence[OffspringProposer], offspring: int, fixed: Mapping[OffspringProposer, float]
) -> bool:
    """Whether generations of so many offspring are too small for all whose share is earned; arguments as below."""
    stated = _stated(proposers, offspring, fixed)
    return offspring - sum(stated.values()) < len(proposers) - len(stated)


def quotas(
    history: Sequence[Mapping[str, Tally]],
    proposers: Sequence[OffspringProposer],
    offspring: int,
    favoured: Collection[OffspringProposer] = (),
    fixed: Mapping[OffspringProposer, float] = MappingProxyType({}),
    in_turn: bool = False,
) -> dict[str, int]:
    """Offspring of the next generation by proposer: floors first, the rest in proportion to credit; they sum up.

    What is fixed is given first, the nearest whole number of offspring; the others share what is left.

    Args:
        history: by proposer, for each generation so far, oldest first.
        proposers: who may make offspring; where there are more of them than offspring, the best get one each.
        offspring: how many are wanted.
        favoured: whose credit is doubled.
        fixed: shares that are not earned, 0 to 1, by proposer.
        in_turn: every generation is too small for all whose share is earned: each of these has a turn, in their order,
            before the best go first.
    """
    if not proposers or offspring < 1:
        return dict.fromkeys(proposers, 0)
    if stated := _stated(proposers, offspring, fixed):
        others = [one for one in proposers if one not in fixed]
        earned_by = quotas(history, others, offspring - sum(stated.values()), favoured, in_turn=in_turn)
        return {one: stated[one] if one in stated else earned_by[one] for one in proposers}
    earned = credit(history, proposers)
    credits = {proposer: worth * (2.0 if proposer in favoured else 1.0) for proposer, worth in earned.items()}
    had = len(history) * offspring  # turns, of which a proposer that makes nothing has one too
    due = proposers[had : had + offspring] if in_turn else ()
    best_first = sorted(
        proposers, key=lambda proposer: (proposer not in due, -credits[proposer], proposers.index(proposer))
    )
    given: dict[str, int] = dict.fromkeys(proposers, 0)
    for proposer in best_first[:offspring]:
        given[proposer] = FLOOR
    rest = offspring - sum(given.values())
    total = sum(credits.values())
    exact = {proposer: rest * credits[proposer] / total for proposer in proposers}
    for proposer in proposers:
        given[proposer] += int(exact[proposer])
    remainders = sorted(
        proposers, key=lambda proposer: (int(exact[proposer]) - exact[proposer], proposers.index(proposer))
    )
    for proposer in remainders[: offspring - sum(given.values())]:
        given[proposer] += 1
    return given


def _stated(
    proposers: Sequence[OffspringProposer], offspring: int, fixed: Mapping[OffspringProposer, float]
) -> dict[OffspringProposer, int]:
    """The offspring of those whose share is fixed."""
    return {one: int(fixed[one] * offspring + 0.5) for one in proposers if one in fixed}
