"""The target model as a LangChain chat model that always answers with a legal tool call.

It generates with the very weights that the elastic model slices: no second copy. Anything that accepts a tool-calling
chat model accepts it; without tools it is a plain chat model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from llguidance.hf import from_tokenizer
from pydantic import ConfigDict, Field

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.calls import Brain, call_id, legal_calls, reply, usage
from self_pruner.agent.brain.decode import Constraint, Decoded, Sample, Sampling, decode
from self_pruner.agent.brain.grammar import FreeText, GrammarConstraint, call_grammar, check_grammar
from self_pruner.agent.brain.page import context_length, render
from self_pruner.memory.errors import BrainError


class TargetBrain(Brain):
    """A causal LM and its tokenizer behind LangChain's interface."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any = Field(repr=False)  # transformers.PreTrainedModel
    tokenizer: Any = Field(repr=False)  # transformers.PreTrainedTokenizerFast
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    thought_tokens: int = Field(default=32, ge=0)  # of the line before a call; 0 for none
    max_call_tokens: int = Field(default=1024, gt=0)  # of a call, or of a plain reply
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
    def prompt_limit(self) -> int | None:
        """Tokens a prompt may have beside the longest reply; None where the model has no limit."""
        context = context_length(self.model.config)
        return None if context is None else context - self.thought_tokens - self.max_call_tokens

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text by the target model's own tokenizer."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of the whole prompt, the chat template's own included."""
        return len(render(self.tokenizer, messages))

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
        """`n` replies to `messages`: with tools a thought and a legal call each, without tools plain text.

        `variants` gives each of the `n` replies tools of its own, in place of `tools`: one prompt, read once, and
        another choice for every reply.

        Raises:
            BrainError: the prompt leaves no room for the longest reply.
            BrainError: a tool's schema cannot be obeyed.
            BrainError: decoding failed, BrainError: it took longer than `time_limit`.
        """
        seed = self.seed if seed is None else seed
        offers = [legal_calls(offer, tool_choice) for offer in variants or [tools or ()] * n]
        calls = offers[0]
        prompt = render(self.tokenizer, messages)
        if self.prompt_limit is not None and len(prompt) > self.prompt_limit:
            raise BrainError(
                f"the prompt has {len(prompt)} tokens, and the model's context of {context_length(self.model.config)} "
                f"leaves {self.prompt_limit} beside a reply of up to {self.thought_tokens + self.max_call_tokens}"
            )
        vocab = self.model.get_output_embeddings().weight.shape[0]
        grammars = [call_grammar(offer, self.thought_tokens) if offer else "" for offer in offers]
        for grammar in dict.fromkeys(filter(None, grammars)):
            check_grammar(grammar, self.alphabet)

        def constraint(index: int) -> Constraint:
            if grammars[index]:
                return GrammarConstraint(grammars[index], self.alphabet, vocab)
            return FreeText(self.alphabet, vocab, self.end, self.tokenizer.all_special_ids, stop or ())

        sampling = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_call_tokens + (self.thought_tokens if calls else 0),
            forced=self.forced,
            time_limit=self.time_limit,
        )
        decoded = decode(self.branches, prompt, constraint, n=n, seed=seed, sampling=sampling, end=self.end)
        make = self.call_message if calls else self.text_message
        messages_out = [make(decoded, sample, seed, index, stop or []) for index, sample in enumerate(decoded.samples)]
        written = sum(len(sample.tokens) for sample in decoded.samples)
        return ChatResult(
            generations=[ChatGeneration(message=message) for message in messages_out],
            llm_output={"token_usage": dict(usage(len(prompt), written))},
        )

    def call_message(self, decoded: Decoded, sample: Sample, seed: int, index: int, stop: list[str]) -> AIMessage:
        """A sample that is a thought and a call; cut short by the token limit, it is an invalid call and says so."""
        raw = self.alphabet.decode_str(sample.tokens)
        facts = self.facts(decoded, sample, raw)
        thought, _, text = raw.partition("\n") if self.thought_tokens else ("", "", raw)
        thought = thought.rstrip("\ufffd").strip()  # the token limit of a thought may cut its last character in two
        if sample.complete:
            call = json.loads(text)
            return reply(thought, call["name"], call["arguments"], seed=seed, index=index, **facts)
        fault = f"the reply was cut at its limit of {self.thought_tokens + self.max_call_tokens} tokens"
        broken = {"name": None, "args": text, "id": call_id(seed, index), "error": fault, "type": "invalid_tool_call"}
        return AIMessage(
            content=thought,
            invalid_tool_calls=[broken],
            usage_metadata=usage(decoded.prompt_tokens, len(sample.tokens)),
            response_metadata=facts,
        )

    def text_message(self, decoded: Decoded, sample: Sample, seed: int, index: int, stop: list[str]) -> AIMessage:
        """A sample of plain chat, cut before the first stop string."""
        raw = self.alphabet.decode_str(sample.tokens)
        ends = [place for place in map(raw.find, stop) if place >= 0]
        return AIMessage(
            content=raw[: min(ends, default=len(raw))].strip(),
            usage_metadata=usage(decoded.prompt_tokens, len(sample.tokens)),
            response_metadata=self.facts(decoded, sample, raw),
        )

    def facts(self, decoded: Decoded, sample: Sample, raw: str) -> dict[str, Any]:
        """What a sample cost. Steps and seconds are those of the whole batch, which all its samples share."""
        return {
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
