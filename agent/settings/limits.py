"""What a search has cost, and how much of its limits that is."""

from __future__ import annotations

from collections.abc import Mapping

from self_pruner.agent.settings.settings import Settings


def cost(spent: Mapping[str, float]) -> int:
    """What a search has cost, in tokens: those evaluated or probed, and those the brain computed.

    `spent` is as in a state or in a judgement of the trace; what it does not name is 0.
    """
    return int(spent.get("tokens", 0) + spent.get("brain_tokens", 0))


def spent_share(settings: Settings, spent: Mapping[str, float]) -> float:
    """How much of the run's nearest limit is used: 0 to 1; `spent` is as for `cost`."""
    shares = [spent.get("evaluations", 0) / settings.evaluations]
    if settings.tokens:
        shares.append(cost(spent) / settings.tokens)
    if settings.minutes:
        shares.append(spent.get("minutes", 0.0) / settings.minutes)
    return min(1.0, max(shares))
