"""A brain that is served elsewhere, or by a server of its own: the legal calls as structured outputs of an endpoint.

So a target model that is quantised or shared by several GPUs says nothing malformed either. A server that ignores the
schema is no danger: whatever comes back is checked against it like every reply, and what is not legal is counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from pydantic import Field

from self_pruner.agent.brain.calls import Offer, broken_reply, reply, reply_schema, text_reply
from self_pruner.agent.brain.endpoint import choices_of
from self_pruner.agent.brain.page import PromptedBrain, alternating, special_tokens
from self_pruner.agent.brain.pieces import CallReader, Line, Piece, TextReader, Words, before, pieces_of
from self_pruner.agent.brain.schema import bounded, response_format, text_of, too_deep
from self_pruner.tools.text.redaction import redact, without_keys

AT_ONCE = 8  # requests of one turn
CHARACTERS = 4  # a token of a thought is about so many
FAR = 4  # times as many tokens as counted here, or as few, are believed: tokenizers differ
TEMPLATE = 1000  # tokens that an endpoint may put around a prompt
FORMAT = (
    "Answer with one JSON object: `thought`, one short line with your reason, then `name` and `arguments` of the call."
)


@dataclass(frozen=True, slots=True)
class _Choice:
    """One reply as it came, and what its request cost where it is the first of one."""

    text: str
    reason: str
    read: int
    cached: int
    written: int


class EndpointBrain(PromptedBrain):
    """A chat model behind an endpoint, obliged to answer with a legal call."""

    endpoint: Any = Field(repr=False)  # Endpoint
    served: Any  # Served
    system: str = "system"  # the role of what the system says, where the template that serves the model is known

    @property
    def _llm_type(self) -> str:
        return "endpoint"

    @property
    def context(self) -> int | None:
        context: int | None = self.served.context
        return context

    @property
    def model_id(self) -> str:
        name: str = self.served.name
        return name

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {**super()._identifying_params, "url": self.endpoint.url, "system": self.system}

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of the whole prompt, with what is added to one that asks for a call."""
        first, *others = messages or [SystemMessage("")]
        first = first.model_copy(update={"content": f"{first.text}\n\n{FORMAT}"})
        return super().get_num_tokens_from_messages([first, *others], tools)

    def replies_to(
        self, messages: list[BaseMessage], offers: Sequence[Offer], seed: int, **options: Any
    ) -> list[AIMessage]:
        """One reply for each offer; equal offers share a request. `model` names another model of the endpoint.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, or answers what is no reply.
            BrainError: it took too long.
        """
        start = time.perf_counter()
        until = time.monotonic() + self.endpoint.timeout
        groups: dict[str, tuple[Offer, list[int]]] = {}
        for index, offer in enumerate(offers):
            groups.setdefault(json.dumps(self._schema(offer)), (offer, []))[1].append(index)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(
                lambda group: self._group(self._body(messages, group[0], seed, options), group[1], seed, until),
                groups.values(),
            )
            said = {index: choice for group in asked for index, choice in group.items()}
        seconds = time.perf_counter() - start
        read = sum(choice.read for choice in said.values())
        cached = sum(choice.cached for choice in said.values())
        shared = [{"prompt_tokens": read, "cached_tokens": cached}, *[{}] * (len(offers) - 1)]  # told once
        return [
            self._message(said[index], offers[index], seed, index, {"seconds": seconds, **told}, options)
            for index, told in enumerate(shared)
        ]

    def reply_in_pieces(
        self, messages: list[BaseMessage], offer: Offer, seed: int, **options: Any
    ) -> Iterator[Piece | AIMessage]:
        """The same reply as it comes.

        Raises:
            EndpointError: as above, and where the endpoint breaks off.
            BrainError: it took too long.
        """
        start = time.perf_counter()
        body = self._body(messages, offer, seed, options)
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        reader = TextReader(body.get("stop", ()), Words(json=False)) if offer is None else _CallReader()
        text, reason, usage, told = "", "", None, False
        for event in self.endpoint.events("/chat/completions", asked, time.monotonic() + self.endpoint.timeout):
            usage = event.get("usage") or usage
            for choice in _first(event):
                fresh = text_of(choice, "delta") or text_of(choice)
                text, reason = text + fresh, str(choice.get("finish_reason") or reason)
                for piece in reader.feed(fresh):
                    told = True
                    yield piece
        text = redact(text)
        read, cached, written = self._spent({"usage": usage}, body["messages"], [{"message": {"content": text}}])
        cost = {"seconds": time.perf_counter() - start, "prompt_tokens": read, "cached_tokens": cached}
        said = _Choice(text, redact(reason), read, cached, written)
        message = self._message(said, offer, seed, 0, cost, options)
        # what was too little, or nothing like a call, is told now
        yield from reader.finish(message) if told else pieces_of(message)
        yield message

    def _schema(self, offer: Offer) -> dict[str, Any] | None:
        """What a reply must be; None for a text."""
        if offer is None:
            return None
        thought = {"type": "string", "maxLength": CHARACTERS * self.thought_tokens} if self.thought_tokens else None
        schema: dict[str, Any] = bounded(reply_schema(offer, thought), self.reply_tokens)
        return schema

    def _body(
        self, messages: Sequence[BaseMessage], offer: Offer, seed: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What one reply is asked for with."""
        turns = alternating(messages, special_tokens(self.tokenizer), self.system)
        schema = self._schema(offer)
        body = {
            "model": options.get("model", self.served.name),
            "messages": turns,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.reply_tokens,
            "seed": seed % 2**31,
        }
        if schema is not None:
            if turns and turns[0]["role"] != "assistant":
                turns[0]["content"] += "\n\n" + FORMAT
            else:  # what the model said itself is not what it is told
                turns.insert(0, {"role": self.system, "content": FORMAT})
            return {**body, "response_format": response_format(schema)}
        stop = self.words_that_end(options)
        return {**body, "stop": stop} if stop else body

    def _group(self, body: Mapping[str, Any], indices: Sequence[int], seed: int, until: float) -> dict[int, _Choice]:
        """Replies to one request, by index. A server that gives fewer than it was asked for is asked again."""
        found: dict[int, _Choice] = {}
        left = list(indices)
        while left:
            asked = {**body, "n": len(left), "seed": (seed + left[0]) % 2**31}
            answer = self.endpoint.ask("POST", "/chat/completions", asked, until)
            choices = choices_of(answer, self.endpoint.url)[: len(left)]
            read, cached, written = self._spent(answer, body["messages"], choices)
            for place, (index, choice) in enumerate(zip(left, choices, strict=False)):
                # what a request cost is told once, by its first choice
                cost = (read, cached, written) if place == 0 else (0, 0, 0)
                found[index] = _Choice(text_of(choice), str(choice.get("finish_reason")), *cost)
            left = left[len(choices) :]
        return found

    def _spent(
        self, answer: Mapping[str, Any], turns: Sequence[Mapping[str, str]], choices: Sequence[Mapping[str, Any]]
    ) -> tuple[int, int, int]:
        """Tokens read, of those from a cache, and written.

        They are counted here too: what the endpoint says is believed where it is near, or a limit on tokens would hold
        for nothing.
        """
        usage = _object(answer.get("usage"))
        read = sum(len(self.tokenizer(turn["content"])["input_ids"]) for turn in turns)
        written = sum(len(self.tokenizer(text_of(choice))["input_ids"]) for choice in choices)
        allowed = len(choices) * (self.reply_tokens)  # some of it may be thought in silence
        read = _believed(usage.get("prompt_tokens"), read, FAR * read + TEMPLATE)
        written = _believed(usage.get("completion_tokens"), written, max(FAR * written, allowed))
        cached = _object(usage.get("prompt_tokens_details")).get("cached_tokens")
        return read, cached if type(cached) is int and 0 <= cached <= read else 0, written

    def _message(
        self,
        said: _Choice,
        offer: Offer,
        seed: int,
        index: int,
        told: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> AIMessage:
        cost = {
            "raw": said.text,
            "decode_steps": 0,
            "forced_tokens": 0,
            "sampled_tokens": said.written,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "output_tokens": said.written,
            "finish_reason": said.reason,
            "model_name": options.get("model", self.served.name),
            **told,
        }
        if offer is None:
            return text_reply(before(said.text, self.words_that_end(options)), cost=cost)
        return _call(said, seed, index, cost)


class _CallReader:
    """A JSON object with a thought and a call as pieces."""

    def __init__(self) -> None:
        self.words = Words(json=True)
        self.line = Line(one_space=True)
        self.call = CallReader()

    def feed(self, text: str, last: bool = False) -> list[Piece]:
        found = self.call.feed(self.words.feed(text, last))
        tidy = [Piece("text", self.line.feed(piece.said)) if piece.kind == "text" else piece for piece in found]
        return [piece for piece in tidy if piece.said]

    def finish(self, message: AIMessage) -> list[Piece]:
        return self.feed("", last=True) + ([self.call.spoiled()] if message.invalid_tool_calls else [])


def _first(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first choice of an event, where it has one: the last one may hold the usage alone."""
    choices = event.get("choices")
    return [choice for choice in choices[:1] if isinstance(choice, dict)] if isinstance(choices, list) else []


def _call(said: _Choice, seed: int, index: int, cost: dict[str, Any]) -> AIMessage:
    """What came as a call; an invalid one with the reason where it is none."""
    try:
        call = json.loads(said.text, strict=False)  # some engines let raw control characters into strings
        if too_deep(call):
            raise ValueError
        if (harmless := without_keys(call)) != call:  # it was spelled in escapes
            call, cost["raw"] = harmless, json.dumps(harmless)
        thought, name, arguments = str(call.get("thought", "")), call["name"], call["arguments"]
        if isinstance(name, str) and isinstance(arguments, dict):
            return reply(" ".join(thought.split()), name, arguments, seed=seed, index=index, cost=cost)
        fault = "the reply's name is no text or its arguments are no object"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        fault = "the reply is not the JSON object that was asked for"
    return broken_reply("", said.text, fault, seed=seed, index=index, cost=cost)


def _object(value: Any) -> Mapping[str, Any]:
    """A value of an answer that should be an object; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def _believed(told: Any, counted: int, most: int) -> int:
    """What an endpoint tells of tokens where that can be; else what was counted here."""
    return told if type(told) is int and counted / FAR <= told <= most else counted
