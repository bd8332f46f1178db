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

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from self_pruner.agent.brain.calls import Brain, LegalCall, call_id, legal_calls, reply, usage
from self_pruner.agent.brain.endpoint import choices_of, response_format, text_of, too_deep, without_keys
from self_pruner.agent.brain.page import alternating, render

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


def reply_schema(calls: Sequence[LegalCall], thought_tokens: int) -> dict[str, Any]:
    """What a reply may be: a thought, then one of the calls."""
    definitions: dict[str, Any] = {}
    branches = []
    for call in calls:
        parameters = dict(call.parameters)
        for name, schema in {**parameters.pop("$defs", {}), **parameters.pop("definitions", {})}.items():
            definitions[f"{call.name}.{name}"] = plain(schema, call.name)
        thought = {"thought": {"type": "string", "maxLength": CHARACTERS * thought_tokens}} if thought_tokens else {}
        fields = {**thought, "name": {"enum": [call.name]}, "arguments": plain(parameters, call.name)}
        branches.append(
            {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        )
    schema = branches[0] if len(branches) == 1 else {"anyOf": branches}
    return {**schema, "$defs": definitions} if definitions else schema


def plain(schema: Any, tool: str) -> Any:
    """The schema without annotations, constants as choices of one, references into the definitions of `tool`."""
    if isinstance(schema, list):
        return [plain(element, tool) for element in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "const":
            result["enum"] = [value]
        elif name == "enum":
            result[name] = value
        elif name == "$ref":
            result[name] = f"#/$defs/{tool}.{str(value).rsplit('/', 1)[-1]}"
        elif name == "properties":
            result[name] = {field: plain(inner, tool) for field, inner in value.items()}
        elif name not in ("title", "description", "default", "examples", "discriminator", "deprecated"):
            result[name] = plain(value, tool)
    return result


class EndpointBrain(Brain):
    """A chat model behind an endpoint, obliged to answer with a legal call."""

    endpoint: Any = Field(repr=False)  # Endpoint
    served: Any  # Served
    tokenizer: Any = Field(repr=False)  # of the target model here; counts what the endpoint does not
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    thought_tokens: int = Field(default=32, ge=0)
    max_call_tokens: int = Field(default=1024, gt=0)

    @property
    def _llm_type(self) -> str:
        return "endpoint"

    @property
    def prompt_limit(self) -> int | None:
        """Tokens a prompt may have beside the longest reply; None where the endpoint does not say."""
        context = self.served.context
        return None if context is None else context - self.thought_tokens - self.max_call_tokens

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of the whole prompt by the target model's tokenizer here."""
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
        """`n` replies to `messages`, each obliged to its variant of the tools; equal variants share a request.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, or answers what is no reply.
            BrainError: it took too long.
        """
        seed = self.seed if seed is None else seed
        start = time.perf_counter()
        until = time.monotonic() + self.endpoint.timeout
        offers = [legal_calls(offer, tool_choice) for offer in variants or [tools or ()] * n]
        turns = alternating(messages, [])
        turns[0]["content"] += "\n\n" + FORMAT
        groups: dict[str, list[int]] = {}
        for index, offer in enumerate(offers):
            groups.setdefault(json.dumps(reply_schema(offer, self.thought_tokens)), []).append(index)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(
                lambda group: self._group(turns, json.loads(group[0]), group[1], seed, until), groups.items()
            )
            said = {index: choice for group in asked for index, choice in group.items()}
        seconds = time.perf_counter() - start
        read = sum(choice.read for choice in said.values())
        cached = sum(choice.cached for choice in said.values())
        out = []
        for index in range(n):
            shared = {"prompt_tokens": read, "cached_tokens": cached} if index == 0 else {}
            out.append(ChatGeneration(message=self._message(said[index], seed, index, seconds, shared)))
        return ChatResult(generations=out)

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
                "max_tokens": self.thought_tokens + self.max_call_tokens,
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
        allowed = len(choices) * (self.thought_tokens + self.max_call_tokens)  # some of it may be thought in silence
        read = _believed(usage.get("prompt_tokens"), read, FAR * read + TEMPLATE)
        written = _believed(usage.get("completion_tokens"), written, max(FAR * written, allowed))
        cached = _object(usage.get("prompt_tokens_details")).get("cached_tokens")
        return read, cached if type(cached) is int and 0 <= cached <= read else 0, written

    def _message(self, said: _Choice, seed: int, index: int, seconds: float, shared: Mapping[str, int]) -> AIMessage:
        facts = {
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
                call, facts["raw"] = harmless, json.dumps(harmless)
            thought, name, arguments = str(call.get("thought", "")), call["name"], call["arguments"]
            if isinstance(name, str) and isinstance(arguments, dict):
                return reply(" ".join(thought.split()), name, arguments, seed=seed, index=index, **facts)
            fault = "the reply's name is no text or its arguments are no object"
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            fault = "the reply is not the JSON object that was asked for"
        broken = {
            "name": None,
            "args": said.text,
            "id": call_id(seed, index),
            "error": fault,
            "type": "invalid_tool_call",
        }
        return AIMessage(
            content="",
            invalid_tool_calls=[broken],
            usage_metadata=usage(shared.get("prompt_tokens", 0), said.written),
            response_metadata=facts,
        )


def _object(value: Any) -> Mapping[str, Any]:
    """A value of an answer that should be an object; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def _believed(told: Any, counted: int, most: int) -> int:
    """What an endpoint tells of tokens where that can be; else what was counted here."""
    return told if type(told) is int and counted / FAR <= told <= most else counted
