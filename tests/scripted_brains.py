"""Brains for tests: one says what it is given, one fails after a while."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.messages import AIMessage
from pydantic import PrivateAttr

from self_pruner.agent.brain.calls import CallSchema, reply, usage
from self_pruner.agent.brain.scripted import FREE, ScriptedBrain, UniformBrain
from self_pruner.memory.errors import BrainError


class ScriptBrain(ScriptedBrain):
    """Says what it was given, one reply a sample, legal or not.

    A reply is {"name", "args", "thought" (optional)}, a plain string (no call), or an exception to raise.
    """

    replies: list[Any]
    _position: int = PrivateAttr(default=0)

    def answer(self, calls: list[CallSchema], seed: int, index: int) -> AIMessage:
        """The next reply of the script; BrainError when it is used up."""
        if self._position >= len(self.replies):
            raise BrainError(f"the script of {len(self.replies)} replies is used up")
        said = self.replies[self._position]
        self._position += 1
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, str):
            return AIMessage(content=said, usage_metadata=usage(FREE), response_metadata={**FREE, "raw": said})
        return reply(said.get("thought", ""), said["name"], said["args"], seed=seed, index=index, cost=FREE)

    @property
    def _llm_type(self) -> str:
        return "script"


class FailingBrain(UniformBrain):
    """Answers like UniformBrain `good` times, then fails for ever: by an exception, or by calls that are not legal."""

    good: int = 0
    failure: Literal["exception", "illegal"] = "exception"
    _answered: int = PrivateAttr(default=0)

    def answer(self, calls: list[CallSchema], seed: int, index: int) -> AIMessage:
        """A legal call while any is left, then a failure."""
        self._answered += 1
        if self._answered <= self.good:
            return super().answer(calls, seed, index)
        if self.failure == "exception":
            raise BrainError("this brain fails on purpose")
        return reply("", "no_such_tool", {}, seed=seed, index=index, cost=FREE)

    @property
    def _llm_type(self) -> str:
        return "failing"
