"""`vectors` and `initialise`: whole vectors of widths, as the prompt set `paper` asks for them.

There are too many to offer all, so a situation has a fixed sample of legal ones. Each has the probability of its whole
sequence of numbers under the grammar of all legal vectors; among the options these are made to add up to 1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from self_pruner.agent.decisions.decision_set import DecisionSituation, Option
from self_pruner.agent.decisions.kinds.kind import OPTIONS, Choice, Kind, Moment, child_of, likeliest
from self_pruner.agent.search.legal_calls import Purpose, Schema, closed, function, levels, repeated
from self_pruner.agent.search.schedule import starting_candidates
from self_pruner.memory.profile import Profile
from self_pruner.prompts.variables import Action, Hints
from self_pruner.tools.profiles.operators import uniform

CHANGES = (2, 8, 24)  # levels that are moved, from option to option: near and far
TRIES = 16  # draws for one option that is new
TOGETHER = 8  # situations of one turn that initialises: a search has only one


class _Whole(Kind):
    """What the two kinds have in common."""

    def tool(self, situation: DecisionSituation, calls: Sequence[dict[str, Any]]) -> Schema:
        """All vectors that are legal."""
        model, arguments = situation.variables.run.model, calls[0]["arguments"]
        fixed = {name: {"const": arguments[name]} for name in ("operator", "parents") if name in arguments}
        vectors = {
            "attention": repeated({"enum": levels(model.n_groups)}, model.n_layers),
            "mlp": repeated({"enum": levels(model.n_blocks)}, model.n_layers),
        }
        return function("prune_model", closed({**fixed, **vectors}))


class Vectors(_Whole):
    """Mutations of the best parent by vectors written anew."""

    name = "vectors"
    purposes: tuple[Purpose, ...] = ("vary",)

    def choices(self, moment: Moment) -> list[Choice]:
        """One, of the best parent."""
        parent = moment.here.population[0]
        profile = moment.history.profile(parent)
        options = _options(moment, {"operator": "mutation", "parents": [parent]}, [profile])
        seen = moment.observer.variables(moment.history, moment.state, moment.here, moment.legal)
        actions: tuple[Action, ...] = ("mutation-vectors",)
        ask = replace(seen.ask, actions=actions, parents=(parent,), thought=False)
        variables = replace(seen, ask=ask, hints=Hints())
        return [Choice(variables, options, (profile.key(),), likeliest(moment, options))]


class Initials(_Whole):
    """First candidates."""

    name = "initialise"
    purposes: tuple[Purpose, ...] = ("initialise",)

    def choices(self, moment: Moment) -> list[Choice]:
        """Several, each with a sample of its own, around the closed forms."""
        starts = [row.profile for row in starting_candidates(moment.history)]
        equal = uniform(moment.budget)
        seen = moment.observer.variables(moment.history, moment.state, moment.here, moment.legal)
        variables = replace(seen, ask=replace(seen.ask, thought=False))
        found = []
        for _ in range(TOGETHER):
            options = _options(moment, {"operator": "initialise"}, starts or [equal])
            found.append(Choice(variables, options, (equal.key(),), likeliest(moment, options)))
        return found


def _options(moment: Moment, fixed: dict[str, Any], starts: Sequence[Profile]) -> tuple[Option, ...]:
    """Different vectors around the starts, in random order; as many as there are options, or as can be found."""
    found: dict[str, Option] = {}
    parents = starts[:1] if "parents" in fixed else []
    for number in range(OPTIONS):
        for _ in range(TRIES):
            start, changes = starts[number % len(starts)], CHANGES[number % len(CHANGES)]
            attention, mlp = _moved(moment, start, changes)
            call = {"name": "prune_model", "arguments": {**fixed, "attention": attention, "mlp": mlp}}
            if str(call) not in found:
                found[str(call)] = Option(call, (child_of(moment.budget, call, parents).key(),))
                break
    options = list(found.values())
    moment.rng.shuffle(options)
    return tuple(options)


def _moved(moment: Moment, start: Profile, changes: int) -> tuple[list[int], list[int]]:
    """The widths of `start` at their nearest levels, with `changes` of them moved by one level."""
    space, rng = moment.budget.space, moment.rng
    allowed = {"attention": levels(space.n_groups), "mlp": levels(space.n_blocks)}
    places = {
        "attention": [_nearest(allowed["attention"], width) for width in start.attention],
        "mlp": [_nearest(allowed["mlp"], width) for width in start.mlp],
    }
    for _ in range(changes):
        part = rng.choice(("attention", "mlp", "mlp"))
        layer = rng.randrange(space.n_layers)
        places[part][layer] = _next(places[part][layer], len(allowed[part]), rng)
    attention, mlp = ([allowed[part][place] for place in places[part]] for part in ("attention", "mlp"))
    return attention, mlp


def _nearest(allowed: Sequence[int], width: int) -> int:
    """The place of the level that is nearest to a width."""
    return min(range(len(allowed)), key=lambda place: abs(allowed[place] - width))


def _next(place: int, count: int, rng: random.Random) -> int:
    """A neighbouring level, or the same at an end."""
    return min(count - 1, max(0, place + rng.choice((-1, 1))))
