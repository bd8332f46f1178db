"""The step of edits and level switches: it follows success.

It grows after a generation in which more than a fifth of the offspring survived, and shrinks after one in which fewer
did (Rechenberg's 1/5 rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from self_pruner.agent.search.proposers import history
from self_pruner.agent.search.state import SearchState, cost
from self_pruner.agent.settings import Settings
from self_pruner.tools.workbench import Workbench

GROW, SHRINK = 1.5, 1.5**-0.25  # at a success rate of one fifth these two cancel out
LARGEST = 3  # times the first step


def step_size(bench: Workbench, settings: Settings, state: SearchState) -> int:
    """The largest change of one edit now, in MLP units of a 48-unit layer."""
    first = settings.mutation_step
    step = float(first)
    for generation in history(bench, state["generation"]):
        made = sum(record.made for record in generation.values())
        if made:
            success = sum(record.survived for record in generation.values()) / made
            step = min(max(step * (GROW if success > 0.2 else SHRINK), 1.0), LARGEST * first)
    return round(step)


def spent_share(settings: Settings, spent: Mapping[str, Any], minutes: float) -> float:
    """How much of the run's nearest limit is used: 0 to 1; `spent` is as for `cost`."""
    shares = [spent.get("evaluations", 0) / settings.evaluations]
    if settings.tokens:
        shares.append(cost(spent) / settings.tokens)
    if settings.minutes:
        shares.append(minutes / settings.minutes)
    return min(1.0, max(shares))
