"""`think`: the brain is shown the search and writes the next calls; a brain that fails is counted and stood in for.

A turn with only one legal call costs no tokens: there is nothing to decide. Whatever the brain says is checked against
the schema it was given, also when the engine claims to have enforced it, so any other chat model is as safe a brain.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from self_pruner.agent.brain.calls import Brain
from self_pruner.agent.brain.schema import violations
from self_pruner.agent.run_files.trace import Reply, Think, TraceRecord
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.legal_calls import Facts, LegalTurn, legal_turn
from self_pruner.agent.search.prompt_variables import Observer
from self_pruner.agent.search.proposers import Operators
from self_pruner.agent.search.schedule import (
    attempts_used_up,
    missing_offspring,
    pending_candidates,
    slopes_due,
    step_size,
    timeable,
)
from self_pruner.agent.search.shortlist import shortlist
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.prompts.fit import fit
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import History, Variables
from self_pruner.tools.prune_model import Proposal
from self_pruner.tools.workbench import Workbench

Call = dict[str, Any]


@dataclass
class Asked:
    """What came of asking the brain."""

    calls: list[Call]
    record: Think
    update: dict[str, Any]


@dataclass
class Thinker:
    """The `think` node of the graph."""

    bench: Workbench
    settings: Settings
    brain: BaseChatModel
    prompts: PromptSet
    observer: Observer
    count_tokens: Callable[[Messages], int]
    context: int  # tokens a prompt may have
    trace: Callable[[TraceRecord], None]
    history: SearchHistory = field(init=False)

    def __post_init__(self) -> None:
        self.history = SearchHistory(self.bench)

    def __call__(self, state: SearchState) -> dict[str, Any]:
        """One turn: the update of the state that holds its calls."""
        step = state["step"] + 1
        self.history.read(state["centre"])
        operators = Operators(self.history, self.settings, state)
        known = facts(self.history, self.settings, state)
        turn = legal_turn(known, self.observer.actions)
        proposals: list[Proposal] = []
        if turn.kind in ("initialise", "vary") and not attempts_used_up(self.settings, state):
            proposals = operators.proposals(known, turn)
        if known.missing and not proposals:  # the brain is to make its share of them
            known = replace(known, missing=dict(operators.open(known.missing)).get("brain", known.missing))
            turn = legal_turn(known, self.observer.actions)
        if not turn.decided and turn.kind in ("latency", "survive") and not known.ranked:
            raise ToolError(
                f"every candidate of generation {state['generation']} failed: "
                f"{self._first_failure(state)}; try a lower --sparsity or --dtype float32"
            )
        update: dict[str, Any] = {"step": step, "proposed_by": "brain", "faulty": False}
        calls: list[Call] = []
        if turn.decided:
            calls = [turn.decided]
            self.trace(Think(step=step, generation=state["generation"], prompt="(one legal call, nothing to decide)"))
        elif proposals or self._survive_by_rank(turn):
            calls = [] if proposals else [survive(known.ranked[: known.survivors])]
            update["proposed_by"] = "tool"
            self.trace(Think(step=step, generation=state["generation"], prompt="(the tool's operators)"))
        elif self._stand_in(state, turn):
            if known.missing:
                proposals = operators.stand_ins(known.missing)
            else:
                calls = [survive([slot[0] for slot in turn.brackets])]
            update["proposed_by"] = "fallback"
            update["failures"] = min(state["failures"], self.settings.brain_failures - 1)
            self.trace(Think(step=step, generation=state["generation"], prompt="", fallback=True))
        else:
            asked = self._ask(state, known, turn, step)
            calls, update = asked.calls, update | asked.update
            self.trace(asked.record)
        calls = calls or list(map(made, proposals))
        named = [
            {"name": call["name"], "args": call["arguments"], "id": f"s{step}.{index}", "type": "tool_call"}
            for index, call in enumerate(calls)
        ]
        return {**update, "proposals": proposals, "messages": [AIMessage(content="", tool_calls=named)]}

    def _survive_by_rank(self, turn: LegalTurn) -> bool:
        """Whether the best survive, without anybody being asked."""
        return turn.kind in ("latency", "survive") and ARMS[self.settings.arm].survive == "best"

    def _stand_in(self, state: SearchState, turn: LegalTurn) -> bool:
        """Whether the tool decides this turn: the brain failed too often in a row, or repeats itself without end."""
        making = turn.kind in ("initialise", "vary")
        repeats = making and attempts_used_up(self.settings, state)
        arm = ARMS[self.settings.arm]
        if making and "brain" not in (arm.vary if state["generation"] else arm.initial):
            return True  # the arm asks no brain for this, and its own proposers found nothing new
        return repeats or state["failures"] >= self.settings.brain_failures

    def _ask(self, state: SearchState, known: Facts, turn: LegalTurn, step: int) -> Asked:
        start = time.perf_counter()
        prompt, replies, error = "", [], None
        try:
            messages = self.prompt(state, known, turn)
            prompt = f"{messages.system}\n\n{messages.turn}"
            spoken: list[BaseMessage] = [SystemMessage(messages.system), HumanMessage(messages.turn)]
            seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed}/{step}".encode()).digest()[:4])
            extra: dict[str, Any] = {}
            if turn.variants and isinstance(self.brain, Brain):  # any other chat model knows one offer for all replies
                extra["variants"] = [list(offer) for offer in turn.variants]
            result = self.brain.generate([spoken], tools=list(turn.tools), n=turn.replies, seed=seed, **extra)
            replies = [generation.message for generation in result.generations[0]]  # type: ignore[union-attr]
        except Exception as fault:  # whatever a brain does, the run goes on: the failure is counted and shown
            error = f"{type(fault).__name__}: {fault}"
        seconds = time.perf_counter() - start
        legal, faults = self._legal(replies, turn)
        calls = legal[: known.missing or 1]  # no more than are missing
        if error is None and not calls:
            error = faults[0] if faults else "the brain wrote no call"
        if error is None and seconds > self.settings.brain_seconds:
            error = f"the turn took {seconds:.0f} s, more than --brain-seconds {self.settings.brain_seconds:.0f}"
        record = _record(step, state["generation"], prompt, replies, seconds, error)
        record = record.model_copy(update={"illegal": len(faults), "surplus": len(legal) - len(calls)})
        update: dict[str, Any] = {
            "brain_tokens": state["brain_tokens"] + record.input_tokens - record.cached_tokens + record.output_tokens,
            "failures": state["failures"] + (error is not None),
            "faulty": error is not None,
        }
        return Asked(calls, record, update)

    def prompt(self, state: SearchState, known: Facts, turn: LegalTurn) -> Messages:
        """The prompt of this turn, shortened to the context."""
        variables = self.observer.variables(self.history, state, known, turn)

        def render(history: History) -> Messages:
            shown = Variables(
                variables.run, variables.generation, variables.spent, variables.ask, history, variables.hints
            )
            return self.prompts.render(shown)

        return fit(render, variables.history, self.count_tokens, self.context).prompt

    def check_room(self, state: SearchState) -> None:
        """Find out before the search, not as one failed turn after another, that prompts have no room.

        Raises:
            SettingsError: even the bare prompt of the first turn is longer than the context allows.
        """
        known = facts(self.history.read(), self.settings, state)
        self.prompt(state, known, legal_turn(known, self.observer.actions))

    def _legal(self, replies: Sequence[BaseMessage], turn: LegalTurn) -> tuple[list[Call], list[str]]:
        """The legal calls among the replies, and a sentence for each reply that holds none."""
        legal: list[Call] = []
        faults: list[str] = []
        for index, reply in enumerate(replies):
            tools = turn.variants[index] if turn.variants and isinstance(self.brain, Brain) else turn.tools
            schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
            spoken = reply.tool_calls[0] if isinstance(reply, AIMessage) and reply.tool_calls else None
            if spoken is None:
                faults.append("the reply holds no call")
            elif spoken["name"] not in schemas:
                faults.append(f"{spoken['name']!r} is not legal now, only {' or '.join(schemas)}")
            elif found := violations(schemas[spoken["name"]], spoken["args"]):
                faults.append(found[0])
            else:
                legal.append({"name": spoken["name"], "arguments": spoken["args"]})
        return legal, faults

    def _first_failure(self, state: SearchState) -> str:
        faults = (self.history.failure(self.history.profile(name)) for name in state["offspring"])
        return next(filter(None, faults), "none was measured")


def facts(history: SearchHistory, settings: Settings, state: SearchState) -> Facts:
    """The facts of the next turn, whose step is one more than the state's."""
    missing = missing_offspring(history, settings, state)
    pending, fidelity = pending_candidates(history, settings, state)
    ranked = history.ranked([*state["population"], *state["offspring"]])
    step = step_size(history, settings)
    cut, grow = shortlist(history, settings, state, step) if missing and state["generation"] else ([], [])
    due = slopes_due(history, settings, state) if missing and not state["offspring"] else ""
    return Facts(
        centre=due,
        space=history.bench.budget.space,
        generation=state["generation"],
        population=tuple(state["population"]),
        missing=missing,
        pending=tuple(pending),
        fidelity=history.bench.fidelity[-1] if due else fidelity,
        ranked=tuple(ranked),
        survivors=settings.population,
        timeable=tuple(timeable(history, settings, state, ranked)),
        cut=tuple(cut),
        grow=tuple(grow),
        step=step,
        samples=settings.samples,
    )


def made(proposal: Proposal) -> Call:
    """The call that writes down a profile which the agent's own operators have made."""
    profile = Profile.from_key(proposal["profile"])
    arguments = {"attention": list(profile.attention), "mlp": list(profile.mlp)}
    parents = {"operator": proposal["operator"], "parents": proposal["parents"]}
    return {"name": "prune_model", "arguments": {**parents, **arguments}}


def survive(names: Sequence[str]) -> Call:
    """The call that closes a generation without a note."""
    return {"name": "record_population", "arguments": {"survivors": list(names), "note": ""}}


def _record(
    step: int, generation: int, prompt: str, replies: Sequence[BaseMessage], seconds: float, error: str | None
) -> Think:
    said, totals = [], dict.fromkeys(("prompt_tokens", "cached_tokens", "decode_steps", "forced_tokens"), 0)
    output = 0
    for index, reply in enumerate(replies):
        facts_ = reply.response_metadata
        call = reply.tool_calls[0] if isinstance(reply, AIMessage) and reply.tool_calls else None
        spoken: dict[str, Any] | None = {"name": call["name"], "args": call["args"]} if call else None
        said.append(Reply(raw=str(facts_.get("raw", reply.content)), thought=str(reply.content), call=spoken))
        if index == 0:  # the replies of a turn share one prompt and one batch
            totals["prompt_tokens"] = int(facts_.get("prompt_tokens", 0))
            totals["cached_tokens"] = int(facts_.get("cached_tokens", 0))
        totals["decode_steps"] = max(totals["decode_steps"], int(facts_.get("decode_steps", 0)))
        totals["forced_tokens"] += int(facts_.get("forced_tokens", 0))
        usage = reply.usage_metadata if isinstance(reply, AIMessage) else None
        output += usage["output_tokens"] if usage else 0
    return Think(
        step=step,
        generation=generation,
        prompt=prompt,
        replies=tuple(said),
        input_tokens=totals["prompt_tokens"],
        cached_tokens=totals["cached_tokens"],
        output_tokens=output,
        decode_steps=totals["decode_steps"],
        forced_tokens=totals["forced_tokens"],
        seconds=seconds,
        error=error,
    )
