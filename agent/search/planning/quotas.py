"""Quotas: how many offspring of a generation each proposer gets.

Adaptive operator selection by probability matching with a floor (Thierens, GECCO 2005): a proposer's credit is the
share of its offspring that survived their generation, pulled towards the common rate while there are few of them, and
the older the weaker. Every proposer keeps a floor: none is written off for good, and each goes on being measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from self_pruner.agent.settings.arms import ARMS, OffspringProposer
from self_pruner.agent.settings.settings import Settings

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


def places(
    settings: Settings,
    history: Sequence[Mapping[str, Tally]],
    proposers: Sequence[OffspringProposer],
    offspring: int,
    favoured: Collection[OffspringProposer] = (),
) -> dict[str, int]:
    """Offspring of the next generation by proposer: those whose share is fixed first, the others as `quotas`.

    Fixed are the brain's share, where one is set, and of what it leaves the share of an arm's steps.

    Args:
        settings: of the run.
        history: by proposer, for each generation so far, oldest first.
        proposers: who may make offspring.
        offspring: how many are wanted.
        favoured: whose credit is doubled. Favoured steps leave the others half as many places.
    """
    fixed, always = (_fixed(settings, proposers, count, favoured) for count in (offspring, settings.offspring))
    others = [one for one in proposers if one not in fixed]
    full = settings.offspring - sum(always.values()) if fixed.keys() == always.keys() else None
    return {**fixed, **quotas(history, others, offspring - sum(fixed.values()), favoured, full)}


def quotas(
    history: Sequence[Mapping[str, Tally]],
    proposers: Sequence[OffspringProposer],
    offspring: int,
    favoured: Collection[OffspringProposer] = (),
    full: int | None = None,
) -> dict[str, int]:
    """Offspring of the next generation by proposer: floors first, the rest in proportion to credit; they sum up.

    Args:
        history: by proposer, for each generation so far, oldest first.
        proposers: who may make offspring; where there are more of them than offspring, the best get one each.
        offspring: how many are wanted.
        favoured: whose credit is doubled.
        full: how many a full generation has of them. Where these are too few for all, each has a turn, in their order,
            before the best go first.
    """
    if not proposers or offspring < 1:
        return dict.fromkeys(proposers, 0)
    earned = credit(history, proposers)
    credits = {proposer: worth * (2.0 if proposer in favoured else 1.0) for proposer, worth in earned.items()}
    had = len(history) * (full or 0)  # turns, of which a proposer that makes nothing has one too
    due = proposers[had : had + offspring] if full is not None and full < len(proposers) else ()
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


def _fixed(
    settings: Settings, proposers: Sequence[OffspringProposer], offspring: int, favoured: Collection[OffspringProposer]
) -> dict[str, int]:
    """The offspring of those whose share is fixed."""
    share, steps = settings.brain_share, ARMS[settings.arm].steps
    fixed: dict[str, int] = {}
    if share is not None and "brain" in proposers:
        fixed["brain"] = int(share * offspring + 0.5)
    left = offspring - sum(fixed.values())
    others = len(proposers) - len(fixed) - 1
    if steps is not None and "model" in proposers and others and left > 1:  # a single place goes round
        fixed["model"] = left - math.ceil((1 - steps) * (0.5 if "model" in favoured else 1.0) * left)
    return fixed
