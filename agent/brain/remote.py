"""A brain that is served elsewhere, or by a server of its own: the legal calls as structured outputs of an endpoint.

So a target model that is quantised or shared by several GPUs says nothing malformed either. A server that ignores the
schema is no danger: whatever comes back is checked against it like every reply, and what is not legal is counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import Field

from self_pruner.agent.brain.calls import CallSchema, PromptedBrain, broken_reply, reply, reply_schema
from self_pruner.agent.brain.endpoint import choices_of, response_format, text_of, too_deep, without_keys
from self_pruner.agent.brain.page import alternating

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

    @property
    def _llm_type(self) -> str:
        return "endpoint"

    @property
    def context(self) -> int | None:
        context: int | None = self.served.context
        return context

    def replies_to(self, messages: list[BaseMessage], offers: Sequence[list[CallSchema]], seed: int) -> list[AIMessage]:
        """One reply for each offer; equal offers share a request.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, or answers what is no reply.
            BrainError: it took too long.
        """
        start = time.perf_counter()
        until = time.monotonic() + self.endpoint.timeout
        turns = alternating(messages, [])
        turns[0]["content"] += "\n\n" + FORMAT
        length = CHARACTERS * self.thought_tokens
        thought = {"type": "string", "maxLength": length} if self.thought_tokens else None
        groups: dict[str, list[int]] = {}
        for index, offer in enumerate(offers):
            groups.setdefault(json.dumps(reply_schema(offer, thought)), []).append(index)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(
                lambda group: self._group(turns, json.loads(group[0]), group[1], seed, until), groups.items()
            )
            said = {index: choice for group in asked for index, choice in group.items()}
        seconds = time.perf_counter() - start
        read = sum(choice.read for choice in said.values())
        cached = sum(choice.cached for choice in said.values())
        shared = [{"prompt_tokens": read, "cached_tokens": cached}, *[{}] * (len(offers) - 1)]  # told once
        return [_message(said[index], seed, index, seconds, told) for index, told in enumerate(shared)]

    def _group(
        self,
        turns: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any],
        indices: Sequence[int],
        seed: int,
        until: float,
    ) -> dict[int, _Choice]:
        """Replies obliged to one schema, by index. A server that gives fewer than it was asked for is asked again."""
        found: dict[int, _Choice] = {}
        left = list(indices)
        while left:
            body = {
                "model": self.served.name,
                "messages": list(turns),
                "n": len(left),
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.reply_tokens,
                "seed": (seed + left[0]) % 2**31,
                "response_format": response_format(schema),
            }
            answer = self.endpoint.ask("POST", "/chat/completions", body, until)
            choices = choices_of(answer, self.endpoint.url)[: len(left)]
            read, cached, written = self._spent(answer, turns, choices)
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


def _message(said: _Choice, seed: int, index: int, seconds: float, shared: Mapping[str, int]) -> AIMessage:
    cost = {
        "raw": said.text,
        "decode_steps": 0,
        "forced_tokens": 0,
        "sampled_tokens": said.written,
        "seconds": seconds,
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "output_tokens": said.written,
        "finish_reason": said.reason,
        **shared,
    }
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
