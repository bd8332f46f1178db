"""`think`: decides who writes the next calls. The brain is asked; one that fails is counted and stood in for.

A turn with only one legal call costs no tokens: there is nothing to decide. Whatever the brain says is checked against
the schema it was given, also when the engine claims to have enforced it, so any other chat model is as safe a brain.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from self_pruner.agent.brain.calls import Brain
from self_pruner.agent.run_files.steering import SHOWN
from self_pruner.agent.run_files.trace import NOTHING_NEW, Think, TraceRecord
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.legal_calls import Call, LegalCalls, Situation, legal_calls
from self_pruner.agent.search.planning.autonomy import LENGTH, SAID, free_calls
from self_pruner.agent.search.planning.plan import as_stated, current_plan, is_plan_due, plan_schema
from self_pruner.agent.search.prompt_variables import Observer
from self_pruner.agent.search.proposers import Operators
from self_pruner.agent.search.replies import legal_replies, record_of, replies_of
from self_pruner.agent.search.schedule import attempts_used_up, left, situation
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.prompts.asked import AskedTurn
from self_pruner.prompts.fit import prompt_of
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import Variables
from self_pruner.tools.profiles.shifts import LINE
from self_pruner.tools.prune_model import Proposal
from self_pruner.tools.workbench import Workbench


@dataclass
class Decision:
    """The calls of one turn, and who wrote them."""

    proposed_by: str  # brain, tool or fallback
    record: Think
    calls: Sequence[Call] = ()
    proposals: list[Proposal] = field(default_factory=list)  # of operators, which are calls too
    update: dict[str, Any] = field(default_factory=dict)  # of the state besides


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
    asked: Callable[[AskedTurn], None] = field(default=lambda turn: None, kw_only=True)  # told before the brain answers
    notes: Callable[[], Sequence[str]] = field(default=tuple, kw_only=True)  # what a person told the run, in order
    history: SearchHistory = field(init=False)

    def __post_init__(self) -> None:
        self.history = SearchHistory(self.bench, free=self.settings.autonomy == "free")

    def __call__(self, state: SearchState) -> dict[str, Any]:
        """One turn: the update of the state that holds its calls."""
        self.history.read(state.centre)
        decision = self.decide(state)
        self.trace(decision.record)
        step = state.step + 1
        calls = decision.calls or [call_of(proposal) for proposal in decision.proposals]
        named = [
            {"name": call["name"], "args": call["arguments"], "id": f"s{step}.{index}", "type": "tool_call"}
            for index, call in enumerate(calls)
        ]
        return {
            "step": step,
            "proposed_by": decision.proposed_by,
            "proposals": decision.proposals,
            "messages": [AIMessage(content="", tool_calls=named)],
            "faulty": False,
            **decision.update,
        }

    def decide(self, state: SearchState) -> Decision:
        """Who writes the calls of the next turn: nobody where there is one, the operators, a stand-in, or the brain.

        Raises:
            ToolError: every candidate of the generation failed, so nothing can survive.
        """
        operators = Operators(self.history, self.settings, state)
        here = self.look(state)
        if state.ending:  # it asks for no more than what is measured
            closing = survive(here.ranked[: here.survivors], current_plan(state).note)
            return self.without_brain(state, "tool", closing)
        if is_plan_due(self.settings, state, here):
            return self.plan(state, here, operators.tries_plan(here.missing))
        if self.settings.autonomy == "free" and state.generation:
            if state.failures < self.settings.brain_failures:
                return self.free(state, here)
            decision = self.guided(state, here, operators)
            decision.record = decision.record.model_copy(update={"fallback": True})
            decision.update["failures"] = self.settings.brain_failures - 1  # it may try again afterwards
            return replace(decision, proposed_by="tool")
        return self.guided(state, here, operators)

    def look(self, state: SearchState) -> Situation:
        """How the search stands before this turn."""
        return situation(self.history, self.settings, state)

    def free(self, state: SearchState, here: Situation) -> Decision:
        """A turn in which the brain may call any tool; what is wrong with its reply is what it reads next."""
        decision = self.ask(state, here, free_calls(self.history, state, here, left(self.settings, state)))
        if error := decision.record.error:
            decision.update["said"] = [error[:LENGTH], *state.said][:SAID]
        return decision

    def guided(self, state: SearchState, here: Situation, operators: Operators) -> Decision:
        """A turn of a search that goes its way: whoever is to make the next candidates, or the next step itself."""
        legal = legal_calls(here, self.observer.actions)
        varies = legal.makes_offspring and not attempts_used_up(self.settings, state)
        if proposals := operators.proposals(here) if varies else []:
            return self.without_brain(state, "tool", proposals=proposals)
        if here.missing:  # the brain is to make its share of them
            here = replace(here, missing=operators.share_of_brain(here.missing))
            legal = legal_calls(here, self.observer.actions)
        if legal.decided:
            record = self.record(state, prompt="(one legal call, nothing to decide)")
            return Decision("brain", record, [legal.decided])
        if legal.closes_generation and not here.ranked:
            raise ToolError(
                f"every candidate of generation {state.generation} failed: "
                f"{self._first_failure(state)}; try a lower --sparsity or --dtype float32"
            )
        if legal.closes_generation and ARMS[self.settings.arm].survive == "best":
            plan = current_plan(state)
            if plan.time and here.timeable:
                timing = {"name": "benchmark_latency", "arguments": {"candidate": here.timeable[0]}}
                return Decision("brain", self.record(state, prompt="(as planned)"), [timing])
            return self.without_brain(state, "tool", survive(here.ranked[: here.survivors], plan.note))
        if self.is_stood_in_for(state, legal):
            if here.missing:
                failed = self.is_brains(state, legal)
                return self.filled_up(state, operators.stand_ins(here.missing, failed), failed)
            return self.without_brain(state, "fallback", survive([slot[0] for slot in legal.brackets]))
        return self.ask(state, here, legal)

    def plan(self, state: SearchState, here: Situation, tried: bool) -> Decision:
        """The turn in which the brain plans the generation; by rule where it fails, or where nothing of it is tried."""
        settings = self.settings
        tool = plan_schema(
            settings.planned,
            here,
            timeable=state.benchmarked < settings.benchmarks,
            note=settings.thought_limit(here.space.dense_params) > 0,
            at_least=self.hypotheses_needed(here.missing),
        )
        if not tried or not tool["function"]["parameters"]["properties"]:  # where nothing can be moved it has neither
            decision = self.without_brain(state, "tool")
        elif state.failures >= settings.brain_failures:  # the tool goes by rule; nothing was made in its place yet
            decision = replace(self.without_brain(state, "fallback"), proposed_by="tool")
        else:
            decision = self.ask(state, here, LegalCalls("plan", (tool,)))
        stated = as_stated(decision.calls[0]["arguments"]) if decision.calls else {}
        if stated:
            decision.record = decision.record.model_copy(update={"plan": stated})
            decision.update["failures"] = 0
        decision.calls = ()  # a plan is followed, not called
        decision.update |= {"plan": stated, "planned_at": state.generation}
        return decision

    def hypotheses_needed(self, offspring: int) -> int:
        """How many a plan has at the least: one more than a fixed share takes, for some have no room."""
        share = self.settings.brain_share
        return 1 + math.ceil(share * offspring / len(LINE)) if share else 1

    def without_brain(
        self, state: SearchState, proposed_by: str, *calls: Call, proposals: Sequence[Proposal] = ()
    ) -> Decision:
        """A turn that the operators write: as the arm has it, or as a fallback in a failing brain's place."""
        if proposed_by == "tool":
            return Decision(proposed_by, self.record(state, prompt="(the tool's operators)"), calls, list(proposals))
        update = {"failures": min(state.failures, self.settings.brain_failures - 1)}  # it may try again afterwards
        return Decision(proposed_by, self.record(state, prompt="", fallback=True), calls, list(proposals), update)

    def filled_up(self, state: SearchState, proposals: Sequence[Proposal], failed: bool) -> Decision:
        """A turn of random candidates: in a failing brain's place, or where nobody else finds any that are new."""
        decision = self.without_brain(state, "fallback", proposals=proposals)
        prompt = "" if failed else "(drawn at random, for the operators found nothing new)"
        said = {"prompt": prompt if proposals else NOTHING_NEW, "fallback": failed}
        return replace(decision, record=decision.record.model_copy(update=said))

    def record(self, state: SearchState, **values: Any) -> Think:
        return Think(step=state.step + 1, generation=state.generation, **values)

    def is_stood_in_for(self, state: SearchState, legal: LegalCalls) -> bool:
        """Whether the tool decides this turn: the brain failed too often in a row, or repeats itself without end."""
        if state.failures >= self.settings.brain_failures:
            return True
        # what is not the brain's to make is made in its own proposers' place, which found nothing new
        return legal.makes_offspring and (not self.is_brains(state, legal) or attempts_used_up(self.settings, state))

    def is_brains(self, state: SearchState, legal: LegalCalls) -> bool:
        """Whether the arm asks a brain for what this turn makes or chooses."""
        arm = ARMS[self.settings.arm]
        return not legal.makes_offspring or not arm.plans and "brain" in (arm.vary if state.generation else arm.initial)

    def ask(self, state: SearchState, here: Situation, legal: LegalCalls) -> Decision:
        """A turn that the brain writes; whatever it does, the run goes on: a failure is counted and shown."""
        start = time.perf_counter()
        prompt, error = "", None
        notes, told = self.notes(), tuple[str, ...]()
        replies: list[BaseMessage] = []
        variants = legal.variants if isinstance(self.brain, Brain) else ()  # any other model knows one offer for all
        seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed}/{state.step + 1}".encode()).digest()[:4])
        try:
            variables = with_notes(self.observer.variables(self.history, state, here, legal), notes)
            self.asked(AskedTurn(state.step + 1, variables, legal.tools, variants, legal.replies, seed, self.context))
            fitted = prompt_of(self.prompts, variables, self.count_tokens, self.context)
            prompt = fitted.prompt.text
            told = tuple(note for note in notes[state.told :] if note in fitted.history.user_notes)
            replies = replies_of(self.brain, fitted.prompt, legal.tools, variants, legal.replies, seed)
        except Exception as fault:
            error = f"{type(fault).__name__}: {fault}"
        seconds = time.perf_counter() - start
        allowed, faults = legal_replies(replies, variants or [legal.tools] * len(replies))
        calls = allowed[: here.missing or 1] if legal.purpose != "free" else allowed[:1]  # no more than are missing
        if error is None and not calls:
            error = faults[0] if faults else "the brain wrote no call"
        if error is None and seconds > self.settings.brain_seconds:
            error = f"the turn took {seconds:.0f} s, more than --brain-seconds {self.settings.brain_seconds:.0f}"
        record = record_of(
            replies,
            step=state.step + 1,
            generation=state.generation,
            prompt=prompt,
            seconds=seconds,
            illegal=len(faults),
            told=told,
            error=error,
        )
        update = {
            "brain_tokens": state.brain_tokens + record.input_tokens - record.cached_tokens + record.output_tokens,
            "failures": state.failures + (error is not None),
            "faulty": error is not None,
            "told": len(notes) if prompt else state.told,
        }
        return Decision("brain", record, calls, update=update)

    def check_room(self, state: SearchState) -> None:
        """Find out before the search, not as one failed turn after another, that prompts have no room.

        Raises:
            SettingsError: even the bare prompt of the first turn is longer than the context allows.
        """
        self.history.read()
        here = self.look(state)
        variables = self.observer.variables(self.history, state, here, legal_calls(here, self.observer.actions))
        prompt_of(self.prompts, variables, self.count_tokens, self.context)

    def _first_failure(self, state: SearchState) -> str:
        faults = (self.history.failure(self.history.profile(name)) for name in state.offspring)
        return next(filter(None, faults), "none was measured")


def with_notes(variables: Variables, notes: Sequence[str]) -> Variables:
    """The variables of a prompt with the newest of what a person told the run."""
    return replace(variables, history=replace(variables.history, user_notes=tuple(notes[: -SHOWN - 1 : -1])))


def call_of(proposal: Proposal) -> Call:
    """The call that writes down a profile which the agent's own operators have made."""
    profile = Profile.from_key(proposal["profile"])
    arguments = {
        "operator": proposal["operator"],
        "parents": proposal["parents"],
        "attention": list(profile.attention),
        "mlp": list(profile.mlp),
    }
    return {"name": "prune_model", "arguments": arguments}


def survive(names: Sequence[str], note: str = "") -> Call:
    """The call that closes a generation."""
    return {"name": "record_population", "arguments": {"survivors": list(names), "note": note}}
