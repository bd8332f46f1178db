"""Which calls are legal, as JSON schemas narrowed to what the state allows.

The rules make progress certain: every turn has one purpose; a purpose is left once its quota or its attempts are used
up; no call can be repeated to no effect. So every generation ends, whoever decides:

    make offspring -> evaluate all on few tokens, the better half on more -> (time one) -> record the population

Schemas are plain JSON schema, so that any engine with structured outputs can enforce them, and nothing that they allow
is refused by a tool. A choice of survivors is made of disjoint brackets of ranks: no combination of choices names a
candidate twice or loses the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from self_pruner.memory.profile import Part
from self_pruner.tools.profiles.selection import brackets
from self_pruner.tools.profiles.shifts import AMOUNTS, partners
from self_pruner.tools.profiles.space import Space

Purpose = Literal["initialise", "plan", "vary", "evaluate", "latency", "survive", "free"]
Schema = dict[str, Any]
Call = dict[str, Any]  # {"name", "arguments"}
FREE_REPLIES = 4  # one reply in so many chooses among all actions
NOTE_LENGTH = 120  # characters of the note to the future self

PLAN = "plan_generation"  # no tool: what a brain states with it is followed
DESCRIPTIONS = {
    "prune_model": "Make a candidate of exactly the budget.",
    "evaluate": "Measure candidates: fitness (KL to the dense model, lower is better) and perplexity.",
    "benchmark_latency": "Time a candidate against the dense model.",
    "record_population": "Close the generation: choose its survivors and leave a note to your future self.",
    "recall_candidates": "Look up the best candidates with their widths, of this run or of earlier ones.",
    PLAN: "State the plan of this generation.",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A layer's attention or MLP, with the units that can be cut from or given to every parent there."""

    layer: int
    part: Part
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """How the search stands before a turn, as far as its legal calls depend on it; by default it has not begun."""

    space: Space
    generation: int = 0
    population: tuple[str, ...] = ()  # parents, best first
    missing: int  # offspring still to be made in this generation
    pending: tuple[str, ...] = ()  # candidates to evaluate next
    fidelity: int  # on how many tokens
    ranked: tuple[str, ...] = ()  # candidates that may survive, best first
    survivors: int  # how many will
    timeable: tuple[str, ...] = ()  # candidates that may be timed now
    cut: tuple[Place, ...] = ()  # shortlist of places to cut, in the order shown
    grow: tuple[Place, ...] = ()  # shortlist of places to give to
    step: int  # largest change of one edit, in units of a 48-unit layer
    samples: int  # replies of one turn at the most
    fine: bool = True  # whether an edit may move a single unit
    take: tuple[str, ...] = ()  # stretches that every parent can cut, in the order shown
    give: tuple[str, ...] = ()  # stretches that every parent can grow
    harmful: tuple[tuple[str, str], ...] = ()  # what gave and what took in shifts that made this run's candidates worse
    centre: str = ""  # the candidate whose first-order sensitivities are to be measured now

    def partners(self) -> dict[str, list[str]]:
        """For every stretch that can be cut those that may take from it in a shift."""
        return partners(self.take, self.give, self.space.n_layers, self.harmful)


@dataclass(frozen=True, slots=True)
class LegalCalls:
    """What may be said in this turn."""

    purpose: Purpose
    tools: tuple[Schema, ...]  # functions in OpenAI's format, for any reply
    replies: int = 1  # replies to sample
    variants: tuple[tuple[Schema, ...], ...] = ()  # the same narrowed for each reply, where replies differ
    brackets: tuple[tuple[str, ...], ...] = ()
    decided: Call | None = None  # the only legal call, where there is nothing to decide

    @property
    def makes_offspring(self) -> bool:
        return self.purpose in ("initialise", "vary")

    @property
    def closes_generation(self) -> bool:
        return self.purpose in ("latency", "survive")


def legal_calls(here: Situation, actions: Sequence[str]) -> LegalCalls:
    """The legal calls where the search stands `here`, for a prompt set that offers `actions`."""
    if here.centre:
        return _evaluation({"candidates": [here.centre], "fidelity": here.fidelity, "sensitivities": True})
    if here.missing > 0:
        replies = min(here.samples, here.missing)
        if here.generation == 0:
            return LegalCalls("initialise", (_making(_initialise(here.space)),), replies)
        return LegalCalls(
            "vary",
            (_making(_variations(here, actions)),),
            replies,
            variants=tuple(
                (_making(_variations(share, share_of_actions(here, actions, reply))),)
                for reply, share in enumerate(shares(here, replies))
            ),
        )
    if here.pending:
        return _evaluation({"candidates": list(here.pending), "fidelity": here.fidelity})
    slots = tuple(tuple(slot) for slot in brackets(here.ranked, here.survivors))
    survive = function(
        "record_population",
        closed(
            {
                "survivors": array([{"enum": list(slot)} for slot in slots]),
                "note": {"type": "string", "maxLength": NOTE_LENGTH},
            }
        ),
    )
    if here.timeable:
        timing = function("benchmark_latency", closed({"candidate": {"enum": list(here.timeable)}}))
        return LegalCalls("latency", (timing, survive), brackets=slots)
    return LegalCalls("survive", (survive,), brackets=slots)


def _evaluation(arguments: dict[str, Any]) -> LegalCalls:
    """The turn in which `evaluate` with these arguments is the only legal call."""
    schema = closed({name: {"const": value} for name, value in arguments.items()})
    return LegalCalls("evaluate", (function("evaluate", schema),), decided={"name": "evaluate", "arguments": arguments})


def shares(here: Situation, replies: int) -> list[Situation]:
    """The situation as each reply of one turn sees them: a different part of the shortlists, half of it at most.

    Replies to one prompt tend to be one reply: a small brain has its favourites. With a share of its own each of them
    decides among other places, so a turn makes different candidates, and every choice is still the brain's. Single
    units are offered to every fourth reply only: offered always, they are always taken, and move nothing.
    """

    def part(places: tuple[Place, ...], reply: int) -> tuple[Place, ...]:
        size = (len(places) + 1) // 2
        return tuple(places[(reply + offset) % len(places)] for offset in range(size)) if places else ()

    return [
        replace(here, cut=part(here.cut, reply), grow=part(here.grow, reply), fine=reply % FREE_REPLIES == 0)
        for reply in range(replies)
    ]


def share_of_actions(here: Situation, actions: Sequence[str], reply: int) -> Sequence[str]:
    """The actions that one reply of a turn chooses from: all of them for every fourth, edits alone for the others.

    Where a set offers edits they are what it is about, and a brain that prefers one action would make nothing else.
    """
    edits_only = "mutation-edits" in actions and here.cut and here.grow and reply % FREE_REPLIES
    return ("mutation-edits",) if edits_only else actions


def _making(variants: list[Schema]) -> Schema:
    return function("prune_model", {"anyOf": variants})


def function(name: str, parameters: Schema) -> Schema:
    """A tool in OpenAI's function format."""
    return {
        "type": "function",
        "function": {"name": name, "description": DESCRIPTIONS[name], "parameters": parameters},
    }


def closed(properties: dict[str, Schema]) -> Schema:
    """An object with exactly these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def array(items: Sequence[Schema]) -> Schema:
    """An array with exactly these items."""
    return {
        "type": "array",
        "prefixItems": list(items),
        "items": False,
        "minItems": len(items),
        "maxItems": len(items),
    }


def repeated(item: Schema, length: int) -> Schema:
    """An array of `length` items of one kind."""
    return {"type": "array", "items": item, "minItems": length, "maxItems": length}


def levels(units: int) -> list[int]:
    """The widths that whole vectors may name: all of few units, about a dozen levels from a quarter upwards of many."""
    step = max(1, units // 12)
    lowest = max(1, units // 4)
    return list(range(units, lowest - 1, -step))[::-1]


def _vectors(space: Space) -> dict[str, Schema]:
    return {
        "attention": repeated({"enum": levels(space.n_groups)}, space.n_layers),
        "mlp": repeated({"enum": levels(space.n_blocks)}, space.n_layers),
    }


def _initialise(space: Space) -> list[Schema]:
    return [closed({"operator": {"const": "initialise"}, **_vectors(space)})]


def _variations(here: Situation, actions: Sequence[str]) -> list[Schema]:
    """One schema for each way to vary the population that the prompt set offers and the state allows."""
    space, parents = here.space, list(here.population)
    one = array([{"enum": parents}])
    mutation: Schema = {"const": "mutation"}
    found: list[Schema] = []
    if "mutation-edits" in actions and here.cut and here.grow:
        cut = {"anyOf": [_edit(place, -1, here) for place in here.cut]}
        grow = {"anyOf": [_edit(place, +1, here) for place in here.grow]}
        edits = {"anyOf": [array([cut, grow]), array([cut, grow, cut, grow])]}
        found.append(closed({"operator": mutation, "parents": one, "edits": edits}))
    if "mutation-shift" in actions and here.take and here.give:
        shift = closed(
            {"take": {"enum": list(here.take)}, "give": {"enum": list(here.give)}, "amount": {"enum": list(AMOUNTS)}}
        )
        found.append(closed({"operator": mutation, "parents": one, "shift": shift}))
    vectors = closed({"operator": mutation, "parents": one, **_vectors(space)})
    if "mutation-vectors" in actions:
        found.append(vectors)
    if len(parents) > 1:
        pairs = {"anyOf": [{"const": [a, b]} for a in parents for b in parents if a != b]}
        crossover: dict[str, Schema] = {"operator": {"const": "crossover"}, "parents": pairs}
        if "crossover-range" in actions:
            layer = {"enum": list(range(space.n_layers))}
            found.append(closed({**crossover, "layers": array([layer, layer])}))
        if "crossover-mask" in actions:
            found.append(closed({**crossover, "mask": repeated({"enum": [0, 1]}, space.n_layers)}))
    return found or [vectors]  # of what the set offers nothing may be possible now


def _edit(place: Place, sign: int, here: Situation) -> Schema:
    units = here.space.units(place.part)
    largest = min(place.room, max(1, round(here.step * units / 48)))
    sizes = sorted({1, max(1, largest // 2), largest} if here.fine else {max(1, largest // 2), largest})
    return closed(
        {
            "layer": {"const": place.layer},
            "part": {"const": place.part},
            "change": {"enum": [sign * size for size in sizes]},
        }
    )
