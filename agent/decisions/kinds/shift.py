"""`shift`: which stretch of layers to take from, which to give to, and how much.

What the brain reads is a table of a dozen stretches, so it can hold all of it in mind. Every stretch takes and gives in
as many options as any other, as far as there are options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from self_pruner.agent.decisions.decision_set import Option
from self_pruner.agent.decisions.kinds.kind import (
    LEAST,
    OPTIONS,
    Choice,
    Moment,
    OfParents,
    child_of,
    first_seen,
    likeliest,
)
from self_pruner.memory.errors import ToolError
from self_pruner.prompts.variables import Action, Variables
from self_pruner.tools.profiles.shifts import AMOUNTS, EXPECTATIONS

ACTIONS: tuple[Action, ...] = ("mutation-shift",)


class Shifts(OfParents):
    """Mutations of one parent by one shift."""

    name = "shift"

    def choice(self, moment: Moment, parent: str) -> Choice | None:
        profile, budget, rng = moment.history.profile(parent), moment.budget, moment.rng
        take, give = rng.sample(moment.here.take, len(moment.here.take)), list(moment.here.give)
        pairs = [
            (one, give[(index + shift) % len(give)]) for shift in range(len(give)) for index, one in enumerate(take)
        ]
        options: dict[tuple[str, ...], Option] = {}
        for one, other in pairs:
            shift = {"take": one, "give": other, "amount": AMOUNTS[len(options) % len(AMOUNTS)]}
            call = {"name": "prune_model", "arguments": {"operator": "mutation", "parents": [parent], "shift": shift}}
            try:
                key = (child_of(budget, call, [profile]).key(),)
            except ToolError:  # the two have layers in common
                continue
            if key != (profile.key(),):
                options.setdefault(key, Option(call, key))
            if len(options) == OPTIONS:
                break
        if len(options) < LEAST:
            return None
        here = replace(moment.here, population=(parent,))
        seen = moment.observer.variables(moment.history, moment.state, moment.here, moment.legal)
        narrow = moment.observer.variables(moment.history, moment.state, here, moment.legal)
        ask = replace(narrow.ask, actions=ACTIONS, parents=(parent,), thought=False)
        variables = replace(seen, ask=ask, hints=replace(narrow.hints, cut=(), grow=()))
        found = list(options.values())
        return Choice(variables, tuple(found), (profile.key(),), likeliest(moment, found))

    def stated(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        """As in a plan, where every hypothesis says what is expected of it."""
        arguments = call["arguments"]
        return [
            {**call, "arguments": {**arguments, "shift": {**arguments["shift"], "expect": word}}}
            for word in EXPECTATIONS
        ]

    def shown(self, variables: Variables, calls: Sequence[dict[str, Any]]) -> Variables:
        """The stretches in the order in which the options take from them."""
        order = [call["arguments"]["shift"]["take"] for call in calls]
        rows = {row.name: row for row in variables.hints.stretches}
        stretches = tuple(rows[name] for name in first_seen(list(rows), order))
        return replace(variables, hints=replace(variables.hints, stretches=stretches))
