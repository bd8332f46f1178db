"""What a search has cost, and how much of its limits that is."""

from __future__ import annotations

from collections.abc import Mapping

from self_pruner.agent.settings.settings import Settings


def cost(spent: Mapping[str, float]) -> int:
    """What a search has cost, in tokens: those evaluated or probed, and those the brain computed.

    `spent` is as in a state or in a judgement of the trace; what it does not name is 0.
    """
    return int(spent.get("tokens", 0) + spent.get("brain_tokens", 0))


def counted(settings: Settings) -> bool:
    """Whether the number of evaluations limits a run, and not its tokens long before."""
    return settings.tokens is None or settings.evaluations * settings.fidelity[0] <= 10 * settings.tokens


def spent_share(settings: Settings, spent: Mapping[str, float]) -> float:
    """How much of the run's nearest limit is used: 0 to 1; `spent` is as for `cost`."""
    shares = [spent.get("evaluations", 0) / settings.evaluations]
    if settings.tokens:
        shares.append(cost(spent) / settings.tokens)
    if settings.minutes:
        shares.append(spent.get("minutes", 0.0) / settings.minutes)
    return min(1.0, max(shares))


def minutes_left(settings: Settings, first: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Minutes until the first of the limits is reached at the pace between two moments; None where there is no pace.

    Patience may end a search earlier.
    """
    minutes = now.get("minutes", 0.0) - first.get("minutes", 0.0)
    ends = [] if settings.minutes is None else [settings.minutes - now.get("minutes", 0.0)]
    for limit, before, after in (
        (settings.evaluations, first.get("evaluations", 0.0), now.get("evaluations", 0.0)),
        (settings.tokens, cost(first), cost(now)),
    ):
        if limit is not None and after > before:
            ends.append(minutes * (limit - after) / (after - before))
    return max(0.0, min(ends)) if ends else None


def about(minutes: float) -> str:
    """A number of minutes as roughly as it is known: no digit that will not last."""
    if minutes < 0.75:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
