"""`prune_model`: makes a candidate from whole vectors, from two parents, or from edits.

Whatever is asked for is projected to the exact budget with the least change; how much was changed is in the answer. The
agent's own operators have their profiles made before the call: these are in the state of the graph, one a call, and are
only written down. The tool is repeatable: called again for the same turn (after a kill, say) it gives the same
candidates the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, ConfigDict, Field

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Part, Profile
from self_pruner.memory.records import Candidate, Operator, Proposer
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import Edit, apply_edits, crossover_mask, crossover_range
from self_pruner.tools.profiles.shifts import SHARES, TIMES, Shift, Stretch, shifted
from self_pruner.tools.workbench import Turn, Workbench


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
    shift: Shift | None = Field(None, description="units moved from one stretch of layers to another")
    layers: list[int] | None = Field(None, description="first and last layer taken from the second parent")
    mask: list[int] | None = Field(None, description="one number a layer: 0 from the first parent, 1 from the second")


class Proposal(TypedDict):
    """A profile on budget and where it comes from; plain values, which the checkpoint of the graph can hold."""

    profile: str  # its key
    operator: Operator
    parents: list[str]  # ids
    proposed_by: Proposer
    detail: str  # what the operator did, in a few words
    repaired: int  # units that the projection to the budget changed


def prune_model_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `prune_model` on `bench`."""

    @tool("prune_model", args_schema=PruneArguments)
    def prune_model(runtime: ToolRuntime, **arguments: Any) -> str:
        """Make a candidate of exactly the budget: initialise, cross two parents, or mutate one."""
        state: Any = runtime.state  # of a search
        turn = Turn.of(state, runtime.tool_call_id or "")
        made: Sequence[Proposal] = state.proposals
        if made:
            proposal = made[turn.call]
        else:
            request = PruneArguments(**arguments)
            parents = [bench.candidate(parent).profile for parent in request.parents]
            proposal = propose(bench.budget, request, parents, turn.proposed_by)
        return json.dumps({"candidates": [_record(bench, proposal, turn)]})

    return prune_model


def propose(budget: Budget, request: PruneArguments, parents: Sequence[Profile], proposed_by: Proposer) -> Proposal:
    """What a call asks for, projected to the budget; `parents` are the profiles of those that it names.

    Raises:
        ToolError: arguments that don't belong together, vectors of the wrong length.
    """
    layers = budget.space.n_layers
    for name, vector in (("attention", request.attention), ("mlp", request.mlp), ("mask", request.mask)):
        if vector is not None and len(vector) != layers:
            raise ToolError(f"{name} needs one number for each of the {layers} layers, got {len(vector)}")
    if request.operator == "crossover":
        return _crossed(budget, request, parents, proposed_by)
    if request.operator == "mutation" and len(parents) != 1:
        raise ToolError(f"mutation needs one parent, got {len(parents)}")
    if request.operator == "mutation" and request.edits:
        return _edited(budget, request, parents[0], proposed_by)
    if request.operator == "mutation" and request.shift:
        return shift_of(budget, request.parents[0], parents[0], request.shift, proposed_by)
    if request.attention is None or request.mlp is None:
        raise ToolError(f"{request.operator} needs both attention and mlp, one number a layer")
    asked = Profile(tuple(request.attention), tuple(request.mlp))
    return on_budget(budget, asked, request.operator, request.parents, proposed_by)


def on_budget(
    budget: Budget,
    asked: Profile,
    operator: Operator,
    parents: Sequence[str],
    proposed_by: Proposer,
    detail: str = "whole vectors",
    hold: frozenset[tuple[int, Part]] = frozenset(),
) -> Proposal:
    """The proposal nearest to `asked`, whose widths may leave the space; the repair leaves `hold` alone if it can."""
    projection = budget.project(asked.attention, asked.mlp, hold)
    return Proposal(
        profile=projection.profile.key(),
        operator=operator,
        parents=list(parents),
        proposed_by=proposed_by,
        detail=detail,
        repaired=projection.changed_units,
    )


def shift_of(
    budget: Budget, parent: str, profile: Profile, asked: Shift, proposed_by: Proposer, times: float = 1.0
) -> Proposal:
    """A shift of `profile`, which is that of the candidate `parent`, by so many times its amount.

    Raises:
        ToolError: what is asked for names no stretch, the same layers twice, or one without room.
    """
    take, give = (Stretch.of(text, budget.space.n_layers) for text in (asked.take, asked.give))
    child = shifted(budget, profile, take, give, times * SHARES[asked.amount])
    detail = str(asked) if times == 1.0 else f"{asked}{TIMES}{times:g}"
    return on_budget(budget, child, "mutation", [parent], proposed_by, detail, take.places | give.places)


def _edited(budget: Budget, request: PruneArguments, parent: Profile, proposed_by: Proposer) -> Proposal:
    layers = budget.space.n_layers
    edits = [Edit(edit.layer, edit.part, edit.change) for edit in request.edits or ()]
    if any(not 0 <= edit.layer < layers for edit in edits):
        raise ToolError(f"layer must be between 0 and {layers - 1}, got {[edit.layer for edit in edits]}")
    child = apply_edits(budget.space, parent, edits)
    held = frozenset((edit.layer, edit.part) for edit in edits)
    return on_budget(budget, child, "mutation", request.parents, proposed_by, " ".join(map(describe, edits)), held)


def _crossed(budget: Budget, request: PruneArguments, parents: Sequence[Profile], proposed_by: Proposer) -> Proposal:
    layers = budget.space.n_layers
    if len(parents) != 2:
        raise ToolError(f"crossover needs two parents, got {len(parents)}")
    if request.layers is not None:
        if len(request.layers) != 2 or not all(0 <= layer < layers for layer in request.layers):
            raise ToolError(f"layers needs two layers between 0 and {layers - 1}, got {request.layers}")
        first, last = sorted(request.layers)
        child = crossover_range(parents[0], parents[1], first, last)
        detail = f"layers {first} to {last} of {request.parents[1]}"
    elif request.mask is not None:
        child = crossover_mask(parents[0], parents[1], [bool(bit) for bit in request.mask])
        detail = f"{sum(map(bool, request.mask))} layers of {request.parents[1]}"
    else:
        raise ToolError("crossover needs layers or a mask")
    return on_budget(budget, child, "crossover", request.parents, proposed_by, detail)


def describe(edit: Edit) -> str:
    """An edit as the prompts show it: `L3.mlp-4`."""
    return f"L{edit.layer}.{edit.part}{edit.change:+d}"


def _record(bench: Workbench, proposal: Proposal, turn: Turn) -> dict[str, Any]:
    """Write the candidate down, unless this run has its profile already; returns the answer to the call."""
    profile = Profile.from_key(proposal["profile"])
    known = _known(bench, profile, turn.next_id)
    candidate = known or Candidate(
        run=bench.run,
        id=f"c{turn.next_id}",
        profile=profile,
        parents=tuple(proposal["parents"]),
        operator=proposal["operator"],
        proposed_by=proposal["proposed_by"],
        generation=turn.generation,
        step=turn.step,
        call=turn.call,
        repaired=proposal["repaired"],
        params=bench.budget.space.params(profile),
        detail=proposal["detail"],
    )
    answer: dict[str, Any] = {
        "id": candidate.id,
        "known": known is not None,
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
    else:
        bench.memory.record(candidate)
    return answer


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
