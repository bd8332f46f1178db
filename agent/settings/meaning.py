"""Who decides in a run with given settings, in words: of an arm that plans, how much of it is the brain's."""

from __future__ import annotations

from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings


def meaning_of(settings: Settings) -> str:
    """What the arm of a run is."""
    arm, share = ARMS[settings.arm], settings.brain_share
    if not arm.plans:
        return arm.meaning
    if settings.autonomy == "free":
        return "the brain calls any tool from the second generation on, the tool's operators stand in where it fails"
    if not settings.planned:
        earned = "each of the tool's operators has the share of offspring that its yield earns"
        return f"no brain is asked{', a rule plans' if share is None else ''}; {earned}"
    if share is None:
        return arm.meaning
    if share == 0:
        return (
            "the brain plans, but states no hypotheses; each of the tool's operators has the share of offspring that "
            "its yield earns"
        )
    return (
        "the brain plans, the tool's operators follow; the brain has a fixed share of the offspring, and each operator "
        "the share of the rest that its yield earns"
    )


def is_brain_asked(settings: Settings) -> bool:
    """Whether a brain, or a scripted control in its place, ever decides anything in a run."""
    arm = ARMS[settings.arm]
    return arm.asks_brain and (not arm.plans or bool(settings.planned) or settings.autonomy == "free")
