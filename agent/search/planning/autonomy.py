"""`--autonomy free`: any tool at any time, with its arguments in full, for brains that can make use of that.

What is offered says what the run still allows: nothing is made once the generation is full, nothing timed once all
timings are used up. A candidate is named by an id that exists; whatever else the arguments say is up to the brain, and
a tool that cannot do it answers with a sentence. A turn that achieves nothing is counted; after several in a row the
tool takes the next step itself, so a run ends whatever its brain does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.legal_calls import (
    NOTE_LENGTH,
    LegalCalls,
    Schema,
    Situation,
    array,
    closed,
    function,
    repeated,
)
from self_pruner.agent.search.planning.recall_candidates import MOST
from self_pruner.agent.search.state import Answer, SearchState, answers
from self_pruner.memory.profile import PARTS
from self_pruner.tools.profiles.selection import rank
from self_pruner.tools.profiles.shifts import AMOUNTS

EDITS = 8  # of one mutation at the most
SAID = 6  # answers that the brain is shown again
LENGTH = 240  # characters of each


def free_calls(history: SearchHistory, state: SearchState, here: Situation, room: int) -> LegalCalls:
    """Every tool that the run still allows, whatever it would be asked for; `room` is the tokens that are left."""
    last = history.bench.fidelity[-1]
    names = nameable(history, state)
    open_ = [name for name in names if history.fitness(history.profile(name), last) is None]
    tools: list[Schema] = []
    if here.missing:
        tools.append(function("prune_model", {"anyOf": _ways(here, {"enum": names})}))
    if set(open_) & {*state.population, *state.offspring}:
        ways = [
            closed({"candidates": _some(open_, min(MOST, room // tokens)), "fidelity": {"const": tokens}})
            for tokens in history.bench.fidelity
            if tokens <= room
        ]
        if ways:
            tools.append(function("evaluate", {"anyOf": ways}))
    if here.timeable:
        tools.append(function("benchmark_latency", closed({"candidate": {"enum": list(here.timeable)}})))
    if here.ranked:
        note = {"type": "string", "maxLength": NOTE_LENGTH}
        survivors = _some(here.ranked, here.survivors)
        tools.append(function("record_population", closed({"survivors": survivors, "note": note})))
    count = {"type": "integer", "minimum": 1, "maximum": MOST}
    tools.append(function("recall_candidates", closed({"count": count, "earlier": {"type": "boolean"}})))
    return LegalCalls("free", tuple(tools))


def nameable(history: SearchHistory, state: SearchState) -> list[str]:
    """The ids of this run that a call may name: population and offspring, then the `MOST` best and the `MOST` newest.

    Every candidate of this run that a prompt or an answer has a row of is among them, and a long run makes the schema
    no longer.
    """
    known = {name: history.known_fitness(row.profile) for name, row in history.candidates.items()}
    best = rank({name: found.kl for name, found in known.items() if found and found.kl is not None})
    newest = list(history.candidates)[: -MOST - 1 : -1]
    return list(dict.fromkeys([*state.population, *state.offspring, *best[:MOST], *newest]))


def achieved(state: SearchState) -> bool:
    """Whether the answers of the current turn brought anything: a candidate, a measurement, a closed generation."""

    def brought(answer: Answer) -> bool:
        if answer.tool == "prune_model":
            return any(not row["known"] for row in answer.result.get("candidates", []))
        if answer.tool == "evaluate":
            return bool(answer.result.get("charged_tokens"))
        return answer.tool in ("benchmark_latency", "record_population") and answer.error is None

    return any(map(brought, answers(state)))


def heard(state: SearchState) -> list[str]:
    """What the brain is shown again: the answers of the current turn before those of earlier ones, each in a line."""
    said = [f"{answer.tool}: {_short(answer)}"[:LENGTH] for answer in answers(state)]
    return [*said, *state.said][:SAID]


def _short(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error
    result: dict[str, Any] = answer.result
    if answer.tool == "prune_model":
        row = result["candidates"][0]
        return f"{row['id']}, {'known already' if row['known'] else 'new'}, {row['repaired_units']} units corrected"
    if answer.tool == "evaluate":
        scores = (
            f"{row['id']} {row['fitness']:.4f}" if row["status"] == "ok" else f"{row['id']} failed"
            for row in result["results"]
        )
        return f"on {result['fidelity']} tokens: {', '.join(scores)}"
    if answer.tool == "recall_candidates":
        return "; ".join(
            f"{row['id']} {row['fitness']:.4f} attention {row['attention']} mlp {row['mlp']}" for row in result["found"]
        )
    return ", ".join(f"{name} {value}" for name, value in result.items())


def _some(names: Sequence[str], most: int) -> Schema:
    """At least one of the names, in any order."""
    return {"type": "array", "items": {"enum": list(names)}, "minItems": 1, "maxItems": most}


def _ways(here: Situation, parent: Schema) -> list[Schema]:
    """The four ways to make a candidate, each with any arguments that its tool could make sense of."""
    space = here.space
    layer = {"type": "integer", "minimum": 0, "maximum": space.n_layers - 1}
    vectors: dict[str, Schema] = {
        part: repeated({"type": "integer", "minimum": 1, "maximum": space.units(part)}, space.n_layers)
        for part in PARTS
    }
    most = max(space.n_groups, space.n_blocks)
    change = {"type": "integer", "minimum": -most, "maximum": most}
    edit = closed({"layer": layer, "part": {"enum": list(PARTS)}, "change": change})
    stretch = {"type": "string", "minLength": 5, "maxLength": 20}
    mutation: dict[str, Schema] = {"operator": {"const": "mutation"}, "parents": array([parent])}
    return [
        closed({**mutation, "edits": {"type": "array", "items": edit, "minItems": 1, "maxItems": EDITS}}),
        closed({**mutation, "shift": closed({"take": stretch, "give": stretch, "amount": {"enum": list(AMOUNTS)}})}),
        closed({"operator": {"const": "crossover"}, "parents": array([parent] * 2), "layers": array([layer] * 2)}),
        closed({"operator": {"const": "initialise"}, **vectors}),
    ]
