"""What an arm of a comparison is: a closed form, a search, or one in which a brain has a say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.panels import CONTROLS, fields_of_plan
from self_pruner.agent.settings.settings import Settings, text_label

ASKING = ("brain", "plan", "brain_share", "autonomy")  # settings that say who is asked for what
FITNESS = ("fidelity", "fitness_text")  # and those that say what a fitness is of; the sequence length is shared
ArmKind = Literal["closed form", "search", "brain"]


def base_name(arm: str) -> str:
    """The arm's name without its prompts and settings."""
    return re.split(r"[:+]", arm, maxsplit=1)[0]


def kind_of(arm: str, shared: Mapping[str, Any] = MappingProxyType({})) -> ArmKind:
    """Whether an arm searches, and whether a brain has any say in it: a scripted control in its place is none.

    Nor has a brain that is asked for nothing.

    Args:
        arm: as it is written, `NAME:PROMPTS+SETTING=VALUE`.
        shared: settings that it has unless it names others.
    """
    known = ARMS.get(base_name(arm))
    if known is None or not known.searches:
        return "closed form" if known else "search"
    settings = _settings(arm, shared)
    makes_none = _is_zero(settings["brain_share"])
    planned = [name for name in fields_of_plan(settings["plan"]) if name != "hypotheses" or not makes_none]
    silent = known.plans and settings["autonomy"] != "free" and not planned
    asked = known.asks_brain and settings["brain"] not in CONTROLS and not silent
    return "brain" if asked else "search"


def brain_of(arm: str, shared: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The setting that says who is asked; arguments as for `kind_of`."""
    return str(_settings(arm, shared)["brain"])


def searched_on(arm: str, shared: Mapping[str, Any] = MappingProxyType({})) -> tuple[int, str]:
    """How many tokens of which texts its final fitness is of; arguments as for `kind_of`.

    A fitness on other tokens is another figure: neither is better than the other.
    """
    settings = _settings(arm, shared)
    stages = settings["fidelity"]
    last = stages.split(",")[-1] if isinstance(stages, str) else stages[-1]
    return int(last), ",".join(map(text_label, str(settings["fitness_text"]).split(",")))


def _settings(arm: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    given = (one.partition("=") for one in arm.split("+")[1:])
    own = {name.strip().replace("-", "_"): value for name, _, value in given}
    unsaid = {name: Settings.model_fields[name].default for name in (*ASKING, *FITNESS)}
    return {**unsaid, **shared, **own}


def _is_zero(share: Any) -> bool:
    try:
        return share is not None and float(share) == 0
    except ValueError:
        return False
