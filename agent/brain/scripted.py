"""Brains without a model: the controls of a comparison and the fakes of the tests.

They read the same tool schemas as the target model and answer in the same form, so an arm with one of them differs from
the target model's arm in nothing but who decides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from self_pruner.agent.brain.calls import Brain, LegalCall, legal_calls, reply, usage
from self_pruner.agent.brain.schema import first_call, sample_call
from self_pruner.memory.errors import BrainError

FACTS = {
    "raw": "", "decode_steps": 0, "forced_tokens": 0, "sampled_tokens": 0, "seconds": 0.0,
    "prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0,
}  # fmt: skip


class ScriptedBrain(Brain):
    """A brain that makes its replies without a model; subclasses write `answer`."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        tools: Any = None,
        tool_choice: Any = None,
        variants: Sequence[Sequence[Any]] | None = None,
        n: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        seed = self.seed if seed is None else seed
        offers = [legal_calls(offer, tool_choice) for offer in variants or [tools or ()] * n]
        answers = [self.answer(offers[index], seed, index) for index in range(n)]
        return ChatResult(generations=[ChatGeneration(message=answer) for answer in answers])

    def answer(self, calls: list[LegalCall], seed: int, index: int) -> AIMessage:
        """Sample `index` of the turn drawn with `seed`."""
        raise NotImplementedError


class UniformBrain(ScriptedBrain):
    """Picks uniformly: a tool among the legal ones, then every value among those legal at its place."""

    def answer(self, calls: list[LegalCall], seed: int, index: int) -> AIMessage:
        """A call drawn with a generator of its own for (seed, index), so a resumed run draws the same."""
        rng = random.Random(f"{seed}/{index}")
        call = rng.choice(some(calls))
        return reply("", call.name, sample_call(call.parameters, rng), seed=seed, index=index, **FACTS)

    @property
    def _llm_type(self) -> str:
        return "uniform"


class FirstBrain(ScriptedBrain):
    """Always the first legal call with the first value everywhere: the least imaginative brain there can be."""

    def answer(self, calls: list[LegalCall], seed: int, index: int) -> AIMessage:
        """The same call whatever the seed."""
        call = some(calls)[0]
        return reply("", call.name, first_call(call.parameters), seed=seed, index=index, **FACTS)

    @property
    def _llm_type(self) -> str:
        return "first"


class ScriptBrain(ScriptedBrain):
    """Says what it was given, one reply a sample, legal or not.

    A reply is {"name", "args", "thought" (optional)}, a plain string (no call), or an exception to raise.
    """

    replies: list[Any]
    _position: int = PrivateAttr(default=0)

    def answer(self, calls: list[LegalCall], seed: int, index: int) -> AIMessage:
        """The next reply of the script; BrainError when it is used up."""
        if self._position >= len(self.replies):
            raise BrainError(f"the script of {len(self.replies)} replies is used up")
        said = self.replies[self._position]
        self._position += 1
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, str):
            return AIMessage(content=said, usage_metadata=usage(0, 0), response_metadata={**FACTS, "raw": said})
        return reply(said.get("thought", ""), said["name"], said["args"], seed=seed, index=index, **FACTS)

    @property
    def _llm_type(self) -> str:
        return "script"


class FailingBrain(UniformBrain):
    """Answers like UniformBrain `good` times, then fails for ever: by an exception, or by calls that are not legal."""

    good: int = 0
    failure: Literal["exception", "illegal"] = "exception"
    _answered: int = PrivateAttr(default=0)

    def answer(self, calls: list[LegalCall], seed: int, index: int) -> AIMessage:
        """A legal call while any is left, then a failure."""
        self._answered += 1
        if self._answered <= self.good:
            return super().answer(calls, seed, index)
        if self.failure == "exception":
            raise BrainError("this brain fails on purpose")
        return reply("", "no_such_tool", {}, seed=seed, index=index, **FACTS)

    @property
    def _llm_type(self) -> str:
        return "failing"


def some(calls: list[LegalCall]) -> list[LegalCall]:
    """The calls, of which there must be at least one."""
    if not calls:
        raise BrainError("a scripted brain can only answer with a tool call, and no tool is legal")
    return calls
