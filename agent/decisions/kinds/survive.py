"""`survive`: which candidate of each bracket is a parent of the next generation.

The brain reads the fitness that the search ranked by. The outcome is the mean fitness of the survivors on tokens that
the search did not see, so the tool's own choice, the first of each bracket, need not be the best.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from self_pruner.agent.decisions.decision_set import DecisionSituation, Option
from self_pruner.agent.decisions.kinds.kind import LEAST, OPTIONS, Choice, Kind, Moment, first_seen, orders_of
from self_pruner.agent.search.legal_calls import Purpose
from self_pruner.agent.search.think import survive
from self_pruner.memory.profile import Profile
from self_pruner.prompts.variables import Variables
from self_pruner.tools.profiles.budget import Budget

SHUFFLES = 500


class Survivors(Kind):
    """Choices of one candidate for every bracket."""

    name = "survive"
    purposes: tuple[Purpose, ...] = ("survive", "latency")
    proposes = False
    profiles = 5  # a bracket's candidates are mostly those of the generation before

    def choices(self, moment: Moment) -> list[Choice]:
        """One, where the brackets leave enough to choose."""
        ways = list(product(*moment.legal.brackets))
        if len(ways) < LEAST:
            return []
        own, *others = ways
        drawn = balanced([own, *moment.rng.sample(others, min(len(others), OPTIONS - 1))], moment.rng)
        options = [
            Option(survive(names), tuple(moment.history.profile(name).key() for name in names)) for names in drawn
        ]
        seen = moment.observer.variables(moment.history, moment.state, moment.here, moment.legal)
        variables = replace(seen, ask=replace(seen.ask, kind="survive", candidates=(), thought=False))
        best = moment.history.profile(moment.here.ranked[0]).key()
        return [Choice(variables, tuple(options), (best,), drawn.index(own))]

    def shown(self, variables: Variables, calls: Sequence[dict[str, Any]]) -> Variables:
        """Every bracket in the order in which the options name its candidates."""
        columns = zip(*(call["arguments"]["survivors"] for call in calls), strict=True)
        brackets = tuple(
            first_seen(bracket, column) for bracket, column in zip(variables.ask.brackets, columns, strict=True)
        )
        return replace(variables, ask=replace(variables.ask, brackets=brackets))

    def fault(self, situation: DecisionSituation, budget: Budget) -> str | None:
        """Every survivor must be of its bracket and on budget."""
        for option in situation.options:
            try:
                names = option.call["arguments"]["survivors"]
                pairs = list(zip(names, situation.variables.ask.brackets, option.profiles, strict=True))
                if not all(name in bracket for name, bracket, _ in pairs):
                    return f"{option.call} names a candidate that is not in its bracket"
                if not all(budget.holds(Profile.from_key(key)) for _, _, key in pairs):
                    return f"{option.call} keeps a profile that is not on the budget"
            except (LookupError, TypeError, ValueError) as error:
                return f"{option.call} cannot be carried out ({error})"
        return None


def balanced(drawn: Sequence[tuple[str, ...]], rng: random.Random) -> list[tuple[str, ...]]:
    """Options in a random order in which, over all orders that are asked, candidates are read first equally often.

    The best of `SHUFFLES` random orders: brackets depend on each other, so there need not be a perfect one.
    """
    orders = orders_of(len(drawn))

    def excess(options: Sequence[tuple[str, ...]]) -> int:
        """How often candidates are first beyond their share, over all brackets."""
        beyond = 0
        for column in zip(*options, strict=True):
            fair = -(-len(orders) // len(set(column)))
            firsts = Counter(column[order[0]] for order in orders)
            beyond += sum(max(0, count - fair) for count in firsts.values())
        return beyond

    best = list(drawn)
    rng.shuffle(best)
    for _ in range(SHUFFLES):
        other = rng.sample(best, len(best))
        best = min(best, other, key=excess)
    return best
