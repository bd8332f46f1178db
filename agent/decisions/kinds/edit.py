"""`edit`: which place to cut, which to grow, and by how much.

The shortlists of a search hold places that are nearly equal. So half of the places here are from them and half from all
others: there is a difference to choose by. Every place is offered by as many options as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from self_pruner.agent.brain.schema import violations
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
from self_pruner.agent.search.legal_calls import Place, Schema, legal_calls
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.prompts.variables import Action, Hint, Variables

PLACES = 8  # to cut, and as many to grow
ACTIONS: tuple[Action, ...] = ("mutation-edits",)


class Edits(OfParents):
    """Mutations of one parent by one cut and one growth."""

    name = "edit"

    def choice(self, moment: Moment, parent: str) -> Choice | None:
        profile, budget = moment.history.profile(parent), moment.budget
        cut, grow = places_of(moment, profile)
        if len(cut) * len(grow) < LEAST:
            return None
        here = replace(moment.here, population=(parent,), cut=tuple(cut), grow=tuple(grow), fine=False)
        legal = legal_calls(here, ACTIONS)
        (mutation,) = legal.tools[0]["function"]["parameters"]["anyOf"]
        pair = mutation["properties"]["edits"]["anyOf"][0]["prefixItems"]
        shifts = range(min(len(grow), -(-OPTIONS // len(cut))))
        pairs = [(index, (index + shift) % len(grow)) for shift in shifts for index in range(len(cut))][:OPTIONS]
        pairs.sort(key=lambda pair: pair[0])  # place by place: orders that begin elsewhere show places in other orders
        options = []
        for one, other in pairs:
            edits = [_drawn(pair[0]["anyOf"][one], moment), _drawn(pair[1]["anyOf"][other], moment)]
            call = {
                "name": "prune_model",
                "arguments": {"operator": "mutation", "parents": [parent], "edits": edits},
            }
            assert not violations(mutation, call["arguments"])
            options.append(Option(call, (child_of(budget, call, [profile]).key(),)))
        seen = moment.observer.variables(moment.history, moment.state, moment.here, moment.legal)
        narrow = moment.observer.variables(moment.history, moment.state, here, legal)
        ask = replace(narrow.ask, actions=ACTIONS, thought=False)
        variables = replace(seen, ask=ask, hints=narrow.hints)
        return Choice(variables, tuple(options), (profile.key(),), likeliest(moment, options))

    def shown(self, variables: Variables, calls: Sequence[dict[str, Any]]) -> Variables:
        """The hints in the order in which the options name their places."""
        edits = [call["arguments"]["edits"] for call in calls]
        cut, grow = ([(pair[side]["layer"], pair[side]["part"]) for pair in edits] for side in (0, 1))
        hints = variables.hints
        return replace(
            variables, hints=replace(hints, cut=_reordered(hints.cut, cut), grow=_reordered(hints.grow, grow))
        )


def _drawn(edit: Schema, moment: Moment) -> dict[str, Any]:
    """The edit of one place, by a size that is legal there."""
    fields = edit["properties"]
    change = moment.rng.choice(fields["change"]["enum"])
    return {"layer": fields["layer"]["const"], "part": fields["part"]["const"], "change": change}


def places_of(moment: Moment, profile: Profile) -> tuple[list[Place], list[Place]]:
    """Places to cut and to grow, as many of either, in random order: half from the shortlists, half from all others."""
    space, rng = moment.budget.space, moment.rng
    every = [(layer, part) for part in PARTS for layer in range(space.n_layers)]
    count = min(PLACES, len(every) // 2)
    found: list[list[Place]] = []
    taken: set[tuple[int, str]] = set()
    for shortlist, grows in ((moment.here.cut, False), (moment.here.grow, True)):
        rooms = {}
        for layer, part in every:
            width = profile.widths(part)[layer]
            room = space.units(part) - width if grows else width - 1
            if room > 0 and (layer, part) not in taken:
                rooms[layer, part] = Place(layer, part, room)
        listed = [rooms[one.layer, one.part] for one in shortlist if (one.layer, one.part) in rooms]
        chosen = rng.sample(listed, min(len(listed), (count + 1) // 2))
        others = [place for place in rooms.values() if place not in listed]
        chosen += rng.sample(others, min(len(others), count - len(chosen)))
        rng.shuffle(chosen)
        taken |= {(place.layer, place.part) for place in chosen}
        found.append(chosen)
    size = min(map(len, found))
    return found[0][:size], found[1][:size]


def _reordered(hints: tuple[Hint, ...], order: Sequence[tuple[int, str]]) -> tuple[Hint, ...]:
    by_place = {(hint.layer, hint.part): hint for hint in hints}
    return tuple(by_place[place] for place in first_seen(list(by_place), order))
