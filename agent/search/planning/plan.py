"""The plan of a generation: what the brain may decide about it, as a record, and as the schema of a reply.

Every field has a default, which is what the search does by rule. `--plan` names the fields that the brain decides, so
each can be measured by itself. What is decided is followed within bounds that the schedule keeps: no field can end a
run early without reason, spend what is not left, or keep a generation from being made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from self_pruner.agent.search.legal_calls import NOTE_LENGTH, PLAN, LegalCalls, Schema, Situation, closed, function
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import OffspringProposer
from self_pruner.agent.settings.panels import HYPOTHESES, PLAN_FIELDS
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.profiles.shifts import AMOUNTS, EXPECTATIONS, Hypothesis

Offspring = Literal["earned", "steps", "shifts", "tries"]
Step = Literal["same", "finer", "coarser"]
# Whose share of the offspring is doubled: of those who follow figures, hypotheses, or nothing.
FAVOURED: Mapping[Offspring, tuple[OffspringProposer, ...]] = MappingProxyType(
    {"earned": (), "steps": ("model",), "shifts": ("brain", "rule"), "tries": ("chance",)}
)
STEPS: Mapping[Step, float] = MappingProxyType({"same": 1.0, "finer": 0.5, "coarser": 2.0})  # times that of the rule


class Plan(BaseModel):
    """What is decided for one generation; the defaults are the rule's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hypotheses: tuple[Hypothesis, ...] = Field((), max_length=HYPOTHESES)  # none: the rule has its own
    offspring: Offspring = "earned"
    step: Step = "same"
    measure: bool = True  # whether first-order sensitivities are measured anew where the rule would
    time: bool = False  # whether the best candidate is timed
    stop: bool = False  # whether the search ends after this generation, once it has stalled
    note: str = Field("", max_length=NOTE_LENGTH)


def current_plan(state: SearchState) -> Plan:
    """The plan of the open generation: as the brain stated it, or the rule's."""
    return Plan.model_validate(state.plan) if state.planned_at == state.generation else Plan()


def is_plan_due(settings: Settings, state: SearchState, here: Situation) -> bool:
    """Whether the brain plans now: once a generation, before its first candidate.

    The first plan waits until first-order sensitivities are there to be shown, where they are measured next.
    """
    if not settings.planned or not state.generation or state.planned_at == state.generation:
        return False
    waits = bool(here.centre) and not state.centre and state.generation == 1
    return here.missing > 0 and not state.offspring and not waits


def plan_schema(fields: Collection[str], here: Situation, *, timeable: bool, note: bool, at_least: int = 1) -> Schema:
    """The function by which the brain states a plan.

    Args:
        fields: those of `PLAN_FIELDS` that it decides.
        here: how the search stands.
        timeable: whether a latency measurement is left.
        note: whether a sentence of its own is wanted.
        at_least: hypotheses that it must state, up to `HYPOTHESES`.
    """
    shapes = [
        closed(
            {
                "take": {"const": one},
                "give": {"enum": others},
                "amount": {"enum": list(AMOUNTS)},
                "expect": {"enum": list(EXPECTATIONS)},
            }
        )
        for one, others in here.partners().items()
        if others
    ]
    possible: dict[str, Schema] = {
        "offspring": {"enum": list(get_args(Offspring))},
        "step": {"enum": list(get_args(Step))},
        "measure": {"enum": [True, False]},
        "stop": {"enum": [False, True]},
    }
    if shapes:
        counts = {"minItems": min(at_least, HYPOTHESES), "maxItems": HYPOTHESES}
        possible["hypotheses"] = {"type": "array", "items": {"anyOf": shapes}, **counts}
    if timeable:
        possible["time"] = {"enum": [False, True]}
    properties = {name: possible[name] for name in PLAN_FIELDS if name in fields and name in possible}
    if note:
        properties["note"] = {"type": "string", "maxLength": NOTE_LENGTH}
    return function(PLAN, closed(properties))


def as_stated(arguments: dict[str, Any]) -> dict[str, Any]:
    """The plan in a legal reply; of hypotheses about one shift the last, for each is tried and judged once."""
    if "hypotheses" not in arguments:
        return arguments
    distinct = {str(Hypothesis.model_validate(one)): one for one in arguments["hypotheses"]}
    return {**arguments, "hypotheses": list(distinct.values())}


def least_hypotheses(legal: LegalCalls) -> int:
    """How many hypotheses the plan of a turn that asks for one must have; 1 where it needs none."""
    stated = legal.tools[0]["function"]["parameters"]["properties"].get("hypotheses", {})
    return int(stated.get("minItems", 1))


def planned_in(legal: LegalCalls) -> list[str]:
    """The fields that a turn which asks for a plan leaves to the brain."""
    return [name for name in legal.tools[0]["function"]["parameters"]["properties"] if name in PLAN_FIELDS]
