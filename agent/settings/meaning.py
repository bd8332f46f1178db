"""Who decides in a run with given settings, in words: of an arm that plans, how much of it is the brain's."""

from __future__ import annotations

from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings

SHARES = (
    "three quarters of the offspring are trust-region steps, and whoever makes the rest has the share that its yield "
    "earns"
)


def meaning_of(settings: Settings) -> str:
    """What the arm of a run is."""
    arm, share = ARMS[settings.arm], settings.brain_share
    if not arm.plans:
        return arm.meaning
    if settings.autonomy == "free":
        return "the brain calls any tool from the second generation on, the tool's operators stand in where it fails"
    if not settings.planned:
        return f"no brain is asked{', a rule plans' if share is None else ''}; {SHARES}"
    if share is None:
        return arm.meaning
    if share == 0:
        return f"the brain plans, but states no hypotheses; {SHARES}"
    return (
        "the brain plans, the tool's operators follow; it has a fixed share of the offspring, three quarters of "
        "the others are trust-region steps, and whoever makes the rest has the share that its yield earns"
    )


def is_brain_asked(settings: Settings) -> bool:
    """Whether a brain, or a scripted control in its place, ever decides anything in a run."""
    arm = ARMS[settings.arm]
    return arm.asks_brain and (not arm.plans or bool(settings.planned) or settings.autonomy == "free")
