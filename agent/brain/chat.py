"""The target model as a LangChain chat model that always answers tools with a legal call.

It generates with the very weights that the elastic model slices: no second copy. Anything that accepts a tool-calling
chat model accepts it: where it is offered no tool it answers in text, it streams, and several threads may call it.
"""

from __future__ import annotations

import hashlib
import json
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from llguidance.hf import from_tokenizer
from pydantic import ConfigDict, Field, PrivateAttr

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.calls import Offer, broken_reply, reply, text_reply
from self_pruner.agent.brain.decode import Decoded, Sampling, decode
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar, check_grammar, text_grammar
from self_pruner.agent.brain.page import PromptedBrain, context_length, render
from self_pruner.agent.brain.pieces import CallReader, Line, Piece, TextReader, before
from self_pruner.memory.errors import BrainError


class TargetBrain(PromptedBrain):
    """A causal LM and its tokenizer behind LangChain's interface."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any = Field(repr=False)  # transformers.PreTrainedModel
    time_limit: float | None = None  # seconds a turn
    forced: bool = True  # append forced tokens in one pass
    _passing: Any = PrivateAttr(default_factory=Lock)  # held during a pass: layers may be on their way to the device

    @property
    def _llm_type(self) -> str:
        return "target-model"

    @property
    def model_id(self) -> str:
        """The id or folder that the model was loaded from, without the way there; its family where it has neither."""
        name = str(getattr(self.model.config, "name_or_path", "") or "")
        return (Path(name).name if Path(name).is_absolute() else name) or str(self.model.config.model_type)

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        config = self.model.config  # names alone are shared by folders, and whole paths are nobody's business
        told = hashlib.sha256(f"{getattr(config, 'name_or_path', '')} {config.to_json_string()}".encode()).hexdigest()
        return {**super()._identifying_params, "config": told[:12]}

    @cached_property
    def branches(self) -> Branches:
        """The model with its prompt cache; call `branches.forget()` when the weights change."""
        return Branches(self.model, self._passing)

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

    def replies_to(
        self, messages: list[BaseMessage], offers: Sequence[Offer], seed: int, **options: Any
    ) -> list[AIMessage]:
        """One reply for each offer: a thought and a legal call, or a text.

        Several threads take turns, and share one prompt cache.

        Raises:
            BrainError: the prompt leaves no room for the longest reply.
            BrainError: a tool's schema cannot be obeyed, or another model is asked for.
            BrainError: decoding failed, or took longer than `time_limit`.
        """
        plan, stop = self._plan(messages, offers, seed, options), self.words_that_end(options)
        branches = self.branches
        with branches.lock:
            *_, decoded = decode(branches, **plan)
        return [self._message(decoded, offer, seed, index, stop) for index, offer in enumerate(offers)]

    def reply_in_pieces(
        self, messages: list[BaseMessage], offer: Offer, seed: int, **options: Any
    ) -> Iterator[Piece | AIMessage]:
        """The same reply as it is written.

        It has a prompt cache of its own: whoever reads it may ask for another reply before this one is over.
        """
        stop = self.words_that_end(options)
        reader = TextReader(stop) if offer is None else _ReplyReader(bool(self.thought_tokens))
        characters = getincrementaldecoder("utf-8")("replace")  # gives each character when it is whole
        fed = 0
        for decoded in decode(Branches(self.model, self._passing), **self._plan(messages, [offer], seed, options)):
            tokens = decoded.samples[0].tokens
            yield from reader.feed(characters.decode(self.alphabet.decode_bytes(tokens[fed:])))
            fed = len(tokens)
        if offer is None:
            yield from reader.feed(characters.decode(b"", final=True))
        message = self._message(decoded, offer, seed, 0, stop)
        yield from reader.finish(message)
        yield message

    def _plan(
        self, messages: list[BaseMessage], offers: Sequence[Offer], seed: int, options: dict[str, Any]
    ) -> dict[str, Any]:
        """What to decode."""
        if options.get("model", self.model_id) != self.model_id:
            raise BrainError(f"the brain is {self.model_id}, and {options['model']!r} is another model")
        stop = self.words_that_end(options)
        prompt = render(self.tokenizer, messages)
        if self.prompt_limit is not None and len(prompt) > self.prompt_limit:
            raise BrainError(
                f"the prompt has {len(prompt)} tokens, and the model's context of {self.context} "
                f"leaves {self.prompt_limit} beside a reply of up to {self.reply_tokens}"
            )
        vocab = self.model.get_output_embeddings().weight.shape[0]
        grammars = [text_grammar() if offer is None else call_grammar(offer, self.thought_tokens) for offer in offers]
        for grammar in dict.fromkeys(grammars):
            check_grammar(grammar, self.alphabet)
        texts = None in offers  # all are, or none
        sampling = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.reply_tokens,
            forced=self.forced,
            time_limit=self.time_limit,
            ends_in_time=not texts,
            over=self._stopped(stop) if texts and stop else None,
        )
        return {
            "prompt": prompt,
            "constraint": lambda index: GrammarConstraint(grammars[index], self.alphabet, vocab),
            "n": len(offers),
            "seed": seed,
            "sampling": sampling,
            "end": self.end,
        }

    def _stopped(self, stop: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether a text has come to one of the words that end it."""
        return lambda tokens: any(word in self.alphabet.decode_str(tokens) for word in stop)

    def _message(self, decoded: Decoded, offer: Offer, seed: int, index: int, stop: Sequence[str]) -> AIMessage:
        """A sample as a thought and a call; cut short by the token limit, it is an invalid call and says so."""
        sample = decoded.samples[index]
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
        if offer is None:
            return text_reply(before(raw, stop), cost=cost)
        thought, _, text = raw.partition("\n") if self.thought_tokens else ("", "", raw)
        thought = thought.rstrip("\ufffd").strip()  # the token limit of a thought may cut its last character in two
        if not sample.complete:
            fault = f"the reply was cut at its limit of {self.reply_tokens} tokens"
            return broken_reply(thought, text, fault, seed=seed, index=index, cost=cost)
        call = json.loads(text)
        return reply(thought, call["name"], call["arguments"], seed=seed, index=index, cost=cost)


class _ReplyReader:
    """A line of thought, where there is one, and a call as pieces."""

    def __init__(self, thinks: bool) -> None:
        self.line = Line() if thinks else None
        self.call = CallReader()

    def feed(self, text: str) -> list[Piece]:
        found = []
        if self.line is not None:
            thought, newline, text = text.partition("\n")
            if said := self.line.feed(thought):
                found.append(Piece("text", said))
            self.line = None if newline else self.line
        return [*found, *self.call.feed(text)]

    def finish(self, message: AIMessage) -> list[Piece]:
        return [self.call.spoiled()] if message.invalid_tool_calls else []
