"""`prune_model`: makes a candidate from whole vectors, from two parents, from edits, or has some drawn at random.

Whatever is proposed is projected to the exact budget with the least change; how much was changed is in the answer. The
tool is repeatable: called again for the same turn (after a kill, say) it gives the same candidates the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, ConfigDict, Field

from self_pruner.memory.profile import Part, Profile
from self_pruner.memory.records import Candidate, Proposer
from self_pruner.tools.profiles.operators import (
    Edit,
    apply_edits,
    crossover_mask,
    crossover_range,
    mutate,
    random_profile,
)
from self_pruner.tools.workbench import ToolError, Turn, Workbench

DRAW_ATTEMPTS = 64  # random profiles tried for one that is new


class EditArguments(BaseModel):
    """One change of one width."""

    model_config = ConfigDict(extra="forbid")

    layer: int = Field(description="layer, counted from 0")
    part: Part = Field(description="attention or mlp")
    change: int = Field(description="units to add (positive) or to cut (negative)")


class PruneArguments(BaseModel):
    """Arguments of `prune_model`."""

    operator: Literal["initialise", "crossover", "mutation"] = Field(description="how the candidate is made")
    parents: list[str] = Field(default_factory=list, description="ids of the parents: one to mutate, two to cross")
    attention: list[int] | None = Field(None, description="KV groups kept in each layer")
    mlp: list[int] | None = Field(None, description="MLP units kept in each layer")
    edits: list[EditArguments] | None = Field(None, description="changes to the parent's widths")
    layers: list[int] | None = Field(None, description="first and last layer taken from the second parent")
    mask: list[int] | None = Field(None, description="one number a layer: 0 from the first parent, 1 from the second")
    draw: int | None = Field(None, ge=1, description="have this many random offspring drawn instead")
    by: Literal["chance", "switch", "cross", "model", "cma", "random"] | None = Field(
        None, description="the tool's own operator that made this proposal; none where the caller did"
    )


def prune_model_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `prune_model` on `bench`."""

    @tool("prune_model", args_schema=PruneArguments)
    def prune_model(runtime: ToolRuntime, **arguments: Any) -> str:
        """Make a candidate of exactly the budget: initialise, cross two parents, or mutate one."""
        turn = Turn.of(runtime.state, runtime.tool_call_id or "")
        request = PruneArguments(**arguments)
        if request.draw:
            made = [_draw(bench, request, turn, turn.first_id + index) for index in range(request.draw)]
        else:
            made = [_make(bench, request, turn, propose(bench, request))]
        return json.dumps({"candidates": [answer for answer in made if answer is not None]})

    return prune_model


class Proposal(NamedTuple):
    """What a call asks for, before repair."""

    attention: Sequence[int]
    mlp: Sequence[int]
    detail: str  # what it did, in a few words
    hold: frozenset[tuple[int, Part]] = frozenset()  # places the repair leaves alone if it can


def propose(bench: Workbench, request: PruneArguments) -> Proposal:
    """The widths a call asks for.

    Raises:
        ToolError: arguments that don't belong together, unknown parents, vectors of the wrong length.
    """
    layers = bench.budget.space.n_layers
    for name, vector in (("attention", request.attention), ("mlp", request.mlp), ("mask", request.mask)):
        if vector is not None and len(vector) != layers:
            raise ToolError(f"{name} needs one number for each of the {layers} layers, got {len(vector)}")
    parents = [bench.candidate(parent).profile for parent in request.parents]
    if request.operator == "crossover":
        return _crossed(request, parents, layers)
    if request.operator == "mutation":
        if len(parents) != 1:
            raise ToolError(f"mutation needs one parent, got {len(parents)}")
        if request.edits:
            edits = [Edit(edit.layer, edit.part, edit.change) for edit in request.edits]
            if any(not 0 <= edit.layer < layers for edit in edits):
                raise ToolError(f"layer must be between 0 and {layers - 1}, got {[edit.layer for edit in edits]}")
            child = apply_edits(bench.budget.space, parents[0], edits)
            held = frozenset((edit.layer, edit.part) for edit in edits)
            return Proposal(child.attention, child.mlp, " ".join(map(describe, edits)), held)
    if request.attention is None or request.mlp is None:
        raise ToolError(f"{request.operator} needs both attention and mlp, one number a layer")
    return Proposal(request.attention, request.mlp, "whole vectors")


def _crossed(request: PruneArguments, parents: list[Profile], layers: int) -> Proposal:
    if len(parents) != 2:
        raise ToolError(f"crossover needs two parents, got {len(parents)}")
    if request.layers is not None:
        if len(request.layers) != 2 or not all(0 <= layer < layers for layer in request.layers):
            raise ToolError(f"layers needs two layers between 0 and {layers - 1}, got {request.layers}")
        first, last = sorted(request.layers)
        child = crossover_range(parents[0], parents[1], first, last)
        return Proposal(child.attention, child.mlp, f"layers {first} to {last} of {request.parents[1]}")
    if request.mask is not None:
        child = crossover_mask(parents[0], parents[1], [bool(bit) for bit in request.mask])
        return Proposal(child.attention, child.mlp, f"{sum(map(bool, request.mask))} layers of {request.parents[1]}")
    raise ToolError("crossover needs layers or a mask")


def describe(edit: Edit) -> str:
    """An edit as the prompts show it: `L3.mlp-4`."""
    return f"L{edit.layer}.{edit.part}{edit.change:+d}"


def _make(bench: Workbench, request: PruneArguments, turn: Turn, proposal: Proposal) -> dict[str, Any]:
    projection = bench.budget.project(proposal.attention, proposal.mlp, proposal.hold)
    known = _known(bench, projection.profile, turn.first_id)
    if known is not None:
        return _answer(bench, known, known=True)
    proposed_by: Proposer = request.by or turn.proposed_by
    made = Made(turn.first_id, projection.profile, proposed_by, proposal.detail, projection.changed_units)
    return _record(bench, request, turn, made)


def _draw(bench: Workbench, request: PruneArguments, turn: Turn, number: int) -> dict[str, Any] | None:
    """One random candidate that this run has not seen: None where `DRAW_ATTEMPTS` draws found only known ones."""
    rng = bench.rng("draw", number)
    parent = bench.candidate(request.parents[0]).profile if request.parents else None
    for _ in range(DRAW_ATTEMPTS):
        if parent is None:
            profile = random_profile(bench.budget, rng)
        else:
            profile = mutate(bench.budget, parent, rng, step=bench.mutation_step, switches=rng.choice((1, 1, 2)))
        if _known(bench, profile, number) is None:
            drawn_by: Proposer = "fallback" if turn.proposed_by == "fallback" else "draw"
            return _record(bench, request, turn, Made(number, profile, drawn_by, "drawn at random", 0))
    return None


def _known(bench: Workbench, profile: Profile, number: int) -> Candidate | None:
    """The candidate of this run that has that profile already, made before candidate `number`.

    A row that this call itself wrote before it was killed does not count, so that the call gives the same answer again.
    """
    rows = bench.memory.recall(Candidate, run=bench.run, profile=profile)
    earlier = [candidate for candidate in rows if candidate_number(candidate.id) < number]
    return min(earlier, key=lambda candidate: candidate_number(candidate.id), default=None)


def candidate_number(candidate_id: str) -> int:
    """The number in an id: candidates are numbered `c1`, `c2`, ... in the order they are made."""
    return int(candidate_id[1:])


class Made(NamedTuple):
    """A new candidate, before it is written down."""

    number: int
    profile: Profile
    proposed_by: Proposer
    detail: str
    repaired: int


def _record(bench: Workbench, request: PruneArguments, turn: Turn, made: Made) -> dict[str, Any]:
    candidate = Candidate(
        run=bench.run,
        id=f"c{made.number}",
        profile=made.profile,
        parents=tuple(request.parents),
        operator=request.operator,
        proposed_by=made.proposed_by,
        generation=turn.generation,
        step=turn.step,
        call=turn.call,
        repaired=made.repaired,
        params=bench.budget.space.params(made.profile),
        detail=made.detail,
    )
    bench.memory.record(candidate)
    return _answer(bench, candidate, known=False)


def _answer(bench: Workbench, candidate: Candidate, *, known: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": candidate.id,
        "known": known,
        "attention": list(candidate.profile.attention),
        "mlp": list(candidate.profile.mlp),
        "repaired_units": candidate.repaired,
        "params": candidate.params,
        "operator": candidate.operator,
        "proposed_by": candidate.proposed_by,
    }
    if known:
        fitness = bench.known_fitness(candidate.profile)
        answer["fitness"] = fitness.kl if fitness else None
    return answer
