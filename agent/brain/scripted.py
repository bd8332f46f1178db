"""Brains without a model: the controls of a comparison.

They read the same tool schemas as the target model and answer in the same form, so an arm with one of them differs from
the target model's arm in nothing but who decides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from self_pruner.agent.brain.calls import Brain, CallSchema, Offer, reply
from self_pruner.agent.brain.schema import first_call, sample_call
from self_pruner.memory.errors import BrainError

FREE = {  # what a reply of theirs costs
    "raw": "", "decode_steps": 0, "forced_tokens": 0, "sampled_tokens": 0, "seconds": 0.0,
    "prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0,
}  # fmt: skip


class ScriptedBrain(Brain):
    """A brain that makes its replies without a model; subclasses write `answer`."""

    def replies_to(
        self, messages: list[BaseMessage], offers: Sequence[Offer], seed: int, **options: Any
    ) -> list[AIMessage]:
        """An answer to each offer, whatever the messages say."""
        return [self.answer(calls or [], seed, index) for index, calls in enumerate(offers)]

    def answer(self, calls: list[CallSchema], seed: int, index: int) -> AIMessage:
        """Sample `index` of the turn drawn with `seed`."""
        raise NotImplementedError


class UniformBrain(ScriptedBrain):
    """Picks uniformly: a tool among the legal ones, then every value among those legal at its place."""

    def answer(self, calls: list[CallSchema], seed: int, index: int) -> AIMessage:
        """A call drawn with a generator of its own for (seed, index), so a resumed run draws the same."""
        rng = random.Random(f"{seed}/{index}")
        call = rng.choice(some(calls))
        return reply("", call.name, sample_call(call.parameters, rng), seed=seed, index=index, cost=FREE)

    @property
    def _llm_type(self) -> str:
        return "uniform"


class FirstBrain(ScriptedBrain):
    """Always the first legal call with the first value everywhere: the least imaginative brain there can be."""

    def answer(self, calls: list[CallSchema], seed: int, index: int) -> AIMessage:
        """The same call whatever the seed."""
        call = some(calls)[0]
        return reply("", call.name, first_call(call.parameters), seed=seed, index=index, cost=FREE)

    @property
    def _llm_type(self) -> str:
        return "first"


def some(calls: list[CallSchema]) -> list[CallSchema]:
    """The calls, of which there must be at least one."""
    if not calls:
        raise BrainError("a scripted brain can only answer with a tool call, and no tool is legal")
    return calls
