"""What a run will do, in integers, before it has done anything: generations, candidates, stages, turns of the brain.

The counts are those of the dearest run that the settings allow: every generation is full, the better half of it
reaches the next stage, nothing is known from earlier runs, and patience never ends the search. What a run really does
is at most this; a brain that fails turn after turn may be asked more often, for fewer replies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from self_pruner.agent.arms import Arm
from self_pruner.agent.search.operator_quotas import FLOOR, quotas
from self_pruner.agent.search.turn_facts import ATTEMPTS
from self_pruner.agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Round:
    """One generation."""

    number: int
    made: int  # candidates made, founders not counted
    by_brain: int  # of those, the most that the brain may have to make
    share: int  # of those, as many as it makes while all makers do equally well
    measured: tuple[int, ...]  # candidates measured for the first time at each fidelity


def rounds(settings: Settings, arm: Arm, remembered: int = 0, splits: int = 0) -> tuple[Round, ...]:
    """The generations of a run, the first population first.

    Args:
        settings: the settings of the run.
        arm: who decides.
        remembered: profiles of earlier runs that it starts with.
        splits: founders besides the arm's own, where the budget has so few profiles that all are measured.
    """
    remembered = remembered if arm.searches else 0
    named = len(arm.founders) + splits
    seeds = named + remembered
    made = max(0, min(settings.initial if arm.initial else 0, settings.evaluations - seeds))
    known = arm.asks_brain and "uniform" in arm.founders  # on the first fidelity: prompts quote it from the start
    found = [
        Round(
            number=0,
            made=made,
            by_brain=_most(arm.initial, made) if arm.initial else 0,
            share=quotas([], arm.initial, made).get("brain", 0),
            measured=_stages(seeds + made, named, len(settings.fidelity), known),
        )
    ]
    evaluated = found[0].measured[0]
    while arm.vary and evaluated < settings.evaluations:
        made = min(settings.offspring, settings.evaluations - evaluated)
        most, share = _most(arm.vary, made), quotas([], arm.vary, made).get("brain", 0)
        found.append(Round(len(found), made, most, share, _stages(made, 0, len(settings.fidelity), False)))
        evaluated += made
    return tuple(found)


def slope_measurements(settings: Settings, arm: Arm, generations: int) -> int:
    """How often the slopes at the best are measured, if that is always another one by then."""
    if not settings.slopes or not arm.learns or generations < 2:
        return 0
    return 1 + (generations - 2) // settings.slopes


def making_turns(candidates: int, samples: int) -> int:
    """Turns in which the brain makes `candidates`, with as many attempts as the rules give it."""
    return ATTEMPTS * math.ceil(candidates / samples)


def _most(makers: tuple[str, ...], made: int) -> int:
    """Candidates that the brain may have to make, if of all makers it did best: all others keep their floor."""
    if "brain" not in makers:
        return 0
    return max(min(made, 1), made - FLOOR * (len(makers) - 1))


def _stages(candidates: int, always: int, stages: int, known: bool) -> tuple[int, ...]:
    """Candidates measured at each stage: all, then the better half and the `always` founders, and so on."""
    counts = [candidates - known]
    for _ in range(stages - 1):
        candidates = min(candidates, math.ceil(candidates / 2) + always)
        counts.append(candidates)
    return tuple(counts)
