"""How much a brain has to read and say in one turn, before it has said anything.

The legal calls of a turn are a schema, so the longest of them can be written down and counted; and since forced tokens
cost no decoding step, so can the decisions in it. Prompts are the run's own, rendered with a history as full as it
gets. Pure functions of schemas and texts; tokens are counted by whoever calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from self_pruner.agent.brain.schema import alternatives, array_lengths, integer_range, item_schema

Schema = Mapping[str, Any]
FILLER = "7"  # what free text is counted as: in most vocabularies every digit is a token, so no text has more of them


@dataclass(frozen=True, slots=True)
class Talk:
    """What one turn of a kind costs a brain, in tokens; a reply is its longest."""

    prompt: int  # tokens read
    cached: int  # of those, tokens that the turn before has left in the cache
    reply: int  # tokens of one reply: thought and call
    steps: int  # decoding steps of a turn: tokens of a reply that are decided, not forced


def talk_of(
    tools: Sequence[Schema],
    thought_tokens: int,
    call_tokens: int,
    prompt: int,
    cached: int,
    count: Callable[[str], int],
) -> Talk:
    """The cost of a turn that offers `tools`.

    Args:
        tools: the legal calls, as functions in OpenAI's format.
        thought_tokens: tokens of thought before a call.
        call_tokens: tokens a call may have at the most.
        prompt: tokens of the prompt.
        cached: tokens at its beginning that every turn shares.
        count: tokens of a text.
    """
    thought = thought_tokens + 1 if thought_tokens else 0  # a thought ends with a newline
    calls = [(tool["function"]["name"], tool["function"]["parameters"]) for tool in tools]
    written = max(count(compact({"name": name, "arguments": longest(schema)})) for name, schema in calls)
    decided = max(decisions(schema) for _, schema in calls) + (len(calls) > 1)
    call = min(written, call_tokens)
    return Talk(prompt, min(cached, prompt), thought + call, thought + min(decided, call))


def longest(schema: Schema) -> Any:
    """A value of `schema` that is as long as any when written as JSON; strings are made of `FILLER`."""
    if "const" in schema:
        return schema["const"]
    branches = alternatives(schema)
    if "enum" in schema or branches is not None:
        return _longest_of(schema["enum"] if "enum" in schema else [longest(branch) for branch in branches or ()])
    if "properties" in schema:
        return {name: longest(field) for name, field in schema["properties"].items()}
    kind = schema.get("type")
    if kind == "array":
        _, most = array_lengths(schema)
        return [longest(item_schema(schema, index) or {}) for index in range(most)]
    if kind == "string":
        return FILLER * schema.get("maxLength", 0)
    if kind == "integer":
        return _longest_of(integer_range(schema))
    return False if kind == "boolean" else None


def decisions(schema: Schema) -> int:
    """Tokens in a reply to `schema` that are decided at the most: a token a character that is not forced."""
    branches = alternatives(schema)
    if "const" in schema:
        return 0
    if "enum" in schema:
        return len(compact(longest(schema))) if len(schema["enum"]) > 1 else 0
    if branches is not None:
        return max(map(decisions, branches)) + (len(branches) > 1)
    if "properties" in schema:
        return sum(map(decisions, schema["properties"].values()))
    kind = schema.get("type")
    if kind == "array":
        least, most = array_lengths(schema)
        return sum(decisions(item_schema(schema, index) or {}) for index in range(most)) + (most - least)
    if kind == "string":
        return schema.get("maxLength", 0) + 1  # the last decision is to end it
    return len(compact(longest(schema)))


def _longest_of(values: Sequence[Any]) -> Any:
    return max(values, key=lambda value: len(compact(value)))


def compact(value: Any) -> str:
    """JSON without whitespace, as the grammar writes it."""
    return json.dumps(value, separators=(",", ":"))
