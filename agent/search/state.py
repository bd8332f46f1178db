"""The state of a search: what decides its next step, and nothing else, since LangGraph writes all of it at every step.

Profiles, scores and closed generations live in the memory, and what was said and how often the brain failed in the
trace. `fold` is the only place where a turn's answers become state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage

from self_pruner.tools.prune_model import Proposal


def latest_turn(old: list[AnyMessage], new: list[AnyMessage]) -> list[AnyMessage]:
    """Keep one turn: a reply of the brain starts it anew, the answers of the tools are added to it."""
    if not new or isinstance(new[0], AIMessage):
        return new
    return old + new


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """What the graph carries from node to node; the defaults are those of a search that has not begun."""

    step: int = 0  # turns taken, the seed of everything random in the turn
    generation: int = 0  # 0 is the initial population
    population: list[str] = field(default_factory=list)  # parents, best first
    offspring: list[str] = field(default_factory=list)  # candidates made in this generation
    next_id: int = 1  # number of the next candidate
    attempts: int = 0  # candidates asked for in this generation, known ones included
    filled: bool = False  # random profiles have filled up this generation in the brain's place
    benchmarked: int = 0  # latency measurements the brain asked for
    plan: dict[str, Any] = field(default_factory=dict)  # what the brain decided of it, see planning/plan.py
    planned_at: int = 0  # generation of that plan; the first one has none
    centre: str = ""  # id of the candidate whose first-order sensitivities were measured last
    centred_at: int = 0  # generation in which that was
    evaluations: int = 0  # distinct candidates evaluated
    tokens: int = 0  # tokens evaluated, probes included
    brain_tokens: int = 0  # tokens the brain computed: read anew or written
    seconds: float = 0.0  # of search, over all sessions
    failures: int = 0  # failed turns of the brain in a row
    faulty: bool = False  # the brain's part in the current turn failed already, whatever comes of its calls
    proposed_by: str = "brain"  # who wrote the calls of the current turn: brain, tool, fallback
    proposals: list[Proposal] = field(default_factory=list)  # one a call where an operator writes these, else none
    said: list[str] = field(default_factory=list)  # the last answers in words, where the brain is free to ask for any
    told: int = 0  # notes of a person that were in a prompt already
    ending: str = ""  # why it ends as soon as the open generation is closed, as far as that has come
    stop: str = ""  # why the run ended, empty while it goes on
    messages: Annotated[list[AnyMessage], latest_turn] = field(default_factory=list)  # the current turn

    @property
    def hypotheses(self) -> list[dict[str, str]]:
        """Those of the open generation's plan; [] where the brain stated none."""
        return list(self.plan.get("hypotheses", ())) if self.planned_at == self.generation else []

    @property
    def spent(self) -> dict[str, float]:
        """What the search has cost so far, by the names that a judgement in the trace gives it."""
        return {
            "evaluations": self.evaluations,
            "tokens": self.tokens,
            "brain_tokens": self.brain_tokens,
            "minutes": self.seconds / 60,
        }


def first_state(seeds: list[str], tokens: int) -> SearchState:
    """The state before the first turn.

    Args:
        seeds: ids of the closed forms and remembered profiles.
        tokens: evaluated tokens that the probes cost.
    """
    return SearchState(offspring=seeds, next_id=len(seeds) + 1, tokens=tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """One tool's answer to one call."""

    tool: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    error: str | None

    @classmethod
    def of(cls, call: ToolCall, message: ToolMessage) -> Answer:
        """What `message` answers to `call`."""
        content = str(message.content)
        if message.status == "error":
            return cls(call["name"], call["args"], {}, content)
        return cls(call["name"], call["args"], json.loads(content), None)


def answers(state: SearchState) -> list[Answer]:
    """The calls of the current turn with their answers, in order."""
    calls = {call["id"]: call for message in state.messages[:1] for call in message.tool_calls}  # type: ignore[union-attr]
    given = [message for message in state.messages[1:] if isinstance(message, ToolMessage)]
    return [Answer.of(calls[message.tool_call_id], message) for message in given]


def fold(state: SearchState, first_fidelity: int) -> dict[str, Any]:
    """The update of the state that the answers of the current turn call for; pure, so it can be tested alone."""
    update: dict[str, Any] = {"messages": [], "proposals": []}
    if state.proposed_by == "fallback":  # even if it found nothing new
        update["filled"] = True
    turn = answers(state)
    made = [answer for answer in turn if answer.tool == "prune_model"]
    if made:
        update |= _fold_made(state, made)
    for answer in turn:
        if answer.tool == "evaluate" and answer.arguments.get("sensitivities"):  # also where they failed: tried once
            update |= {"centre": answer.arguments["candidates"][0], "centred_at": state.generation}
        if answer.error is not None:
            update["failures"] = state.failures + 1
        elif answer.tool == "evaluate":
            update["tokens"] = state.tokens + answer.result["charged_tokens"]
            if not answer.arguments.get("sensitivities") and answer.result["fidelity"] == first_fidelity:
                update["evaluations"] = state.evaluations + len(answer.result["results"])
        elif answer.tool == "benchmark_latency":
            update["benchmarked"] = state.benchmarked + 1
            update["failures"] = _failures(state, worked=True)
        elif answer.tool == "record_population":
            update |= {
                "failures": _failures(state, worked=True),
                "generation": state.generation + 1,
                "population": answer.result["survivors"],
                "offspring": [],
                "attempts": 0,
                "filled": False,
            }
    return update


def _fold_made(state: SearchState, made: list[Answer]) -> dict[str, Any]:
    new = [row["id"] for answer in made for row in answer.result.get("candidates", []) if not row["known"]]
    return {
        "offspring": state.offspring + new,
        "next_id": state.next_id + len(made),
        "attempts": state.attempts + len(made),
        # a turn that made nothing new is a failed turn: the brain repeats itself
        "failures": _failures(state, worked=bool(new)),
    }


def _failures(state: SearchState, *, worked: bool) -> int:
    """Failed turns in a row after this one: a turn of the tool changes nothing, nor one that is counted already."""
    if state.proposed_by != "brain" or state.faulty:
        return state.failures
    return 0 if worked else state.failures + 1
