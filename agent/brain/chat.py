"""The target model as a LangChain chat model that always answers with a legal tool call.

It generates with the very weights that the elastic model slices: no second copy. Anything that accepts a tool-calling
chat model accepts it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from llguidance.hf import from_tokenizer
from pydantic import ConfigDict, Field

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.calls import CallSchema, PromptedBrain, broken_reply, reply
from self_pruner.agent.brain.decode import Decoded, Sample, Sampling, decode
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar, check_grammar
from self_pruner.agent.brain.page import context_length, render
from self_pruner.memory.errors import BrainError


class TargetBrain(PromptedBrain):
    """A causal LM and its tokenizer behind LangChain's interface."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any = Field(repr=False)  # transformers.PreTrainedModel
    time_limit: float | None = None  # seconds a turn
    forced: bool = True  # append forced tokens in one pass

    @property
    def _llm_type(self) -> str:
        return "target-model"

    @cached_property
    def branches(self) -> Branches:
        """The model with its prompt cache; call `branches.forget()` when the weights change."""
        return Branches(self.model)

    @cached_property
    def end(self) -> list[int]:
        """Ids that end a text."""
        ids = getattr(self.model.generation_config, "eos_token_id", None)
        named = ids if isinstance(ids, list) else [ids]
        return sorted({token for token in [*named, self.tokenizer.eos_token_id] if token is not None})

    @cached_property
    def alphabet(self) -> Any:
        """The tokenizer as llguidance sees it."""
        return from_tokenizer(self.tokenizer, eos_token=self.end or None)

    @property
    def context(self) -> int | None:
        return context_length(self.model.config)

    def replies_to(self, messages: list[BaseMessage], offers: Sequence[list[CallSchema]], seed: int) -> list[AIMessage]:
        """One reply for each offer: a thought and a legal call.

        Raises:
            BrainError: the prompt leaves no room for the longest reply.
            BrainError: a tool's schema cannot be obeyed.
            BrainError: decoding failed, or took longer than `time_limit`.
        """
        prompt = render(self.tokenizer, messages)
        if self.prompt_limit is not None and len(prompt) > self.prompt_limit:
            raise BrainError(
                f"the prompt has {len(prompt)} tokens, and the model's context of {self.context} "
                f"leaves {self.prompt_limit} beside a reply of up to {self.reply_tokens}"
            )
        vocab = self.model.get_output_embeddings().weight.shape[0]
        grammars = [call_grammar(offer, self.thought_tokens) for offer in offers]
        for grammar in dict.fromkeys(grammars):
            check_grammar(grammar, self.alphabet)
        sampling = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.reply_tokens,
            forced=self.forced,
            time_limit=self.time_limit,
        )
        decoded = decode(
            self.branches,
            prompt,
            lambda index: GrammarConstraint(grammars[index], self.alphabet, vocab),
            n=len(offers),
            seed=seed,
            sampling=sampling,
            end=self.end,
        )
        return [self._message(decoded, sample, seed, index) for index, sample in enumerate(decoded.samples)]

    def _message(self, decoded: Decoded, sample: Sample, seed: int, index: int) -> AIMessage:
        """A sample as a thought and a call; cut short by the token limit, it is an invalid call and says so."""
        raw = self.alphabet.decode_str(sample.tokens)
        cost = {  # steps and seconds are those of the whole batch, which all its samples share
            "raw": raw,
            "decode_steps": decoded.steps,
            "forced_tokens": sample.forced,
            "sampled_tokens": sample.sampled,
            "seconds": decoded.seconds,
            "prompt_tokens": decoded.prompt_tokens,
            "cached_tokens": decoded.cached_tokens,
            "output_tokens": len(sample.tokens),
            "finish_reason": "stop" if sample.complete else "length",
        }
        thought, _, text = raw.partition("\n") if self.thought_tokens else ("", "", raw)
        thought = thought.rstrip("\ufffd").strip()  # the token limit of a thought may cut its last character in two
        if not sample.complete:
            fault = f"the reply was cut at its limit of {self.reply_tokens} tokens"
            return broken_reply(thought, text, fault, seed=seed, index=index, cost=cost)
        call = json.loads(text)
        return reply(thought, call["name"], call["arguments"], seed=seed, index=index, cost=cost)
