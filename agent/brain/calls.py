"""What every brain has in common: tools become schemas, schemas become replies.

A brain is a LangChain chat model that, given tools, always answers with one legal call a sample. The target model, the
scripted controls and any later engine differ in `_generate` alone, so the graph cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from self_pruner.memory.errors import BrainError

Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool


@dataclass(frozen=True, slots=True)
class LegalCall:
    """One tool and the JSON schema of the arguments it may be given now."""

    name: str
    parameters: Mapping[str, Any]


def closed(schema: Any) -> Any:
    """The schema with every object that lists its properties closed to others, unless it says otherwise."""
    if isinstance(schema, Mapping):
        result = {name: closed(value) if name not in ("const", "enum", "default") else value
                  for name, value in schema.items()}  # fmt: skip
        if isinstance(schema.get("properties"), Mapping) and "additionalProperties" not in schema:
            result["additionalProperties"] = False
        return result
    return [closed(element) for element in schema] if isinstance(schema, list | tuple) else schema


def legal_calls(tools: Sequence[Tool], tool_choice: Any = None) -> list[LegalCall]:
    """Tools in any form LangChain knows as legal calls, narrowed by `tool_choice`.

    `tool_choice` is a tool's name, an OpenAI-style dict naming one, or anything else ("auto", "any", "required", None)
    for any of them: a brain with tools always calls one. "none" leaves no tool, which is plain chat.

    Raises:
        BrainError: there is no tool of that name.
    """
    if tool_choice == "none":
        return []
    calls = []
    for tool in tools:
        function = convert_to_openai_tool(tool)["function"]
        calls.append(LegalCall(function["name"], closed(function.get("parameters") or {"type": "object"})))
    if isinstance(tool_choice, Mapping):
        tool_choice = tool_choice.get("function", tool_choice).get("name")
    if isinstance(tool_choice, str) and tool_choice not in ("auto", "any", "required"):
        chosen = [call for call in calls if call.name == tool_choice]
        if not chosen:
            raise BrainError(f"there is no tool {tool_choice!r}; there are {[call.name for call in calls]}")
        return chosen
    return calls


def reply(thought: str, name: str, arguments: Mapping[str, Any], *, seed: int, index: int, **facts: Any) -> AIMessage:
    """One sample as a message: the thought is the content, the call is the one tool call.

    `facts` go to `response_metadata`; "prompt_tokens" and "output_tokens" among them make the usage.
    """
    return AIMessage(
        content=thought,
        tool_calls=[{"name": name, "args": dict(arguments), "id": call_id(seed, index), "type": "tool_call"}],
        usage_metadata=usage(facts.get("prompt_tokens", 0), facts.get("output_tokens", 0)),
        response_metadata=facts,
    )


def call_id(seed: int, index: int) -> str:
    """The id of sample `index` of the turn drawn with `seed`: the same in a resumed run."""
    return f"call_{seed}_{index}"


def usage(prompt_tokens: int, output_tokens: int) -> UsageMetadata:
    """Tokens read and written, in LangChain's form."""
    return UsageMetadata(
        input_tokens=prompt_tokens, output_tokens=output_tokens, total_tokens=prompt_tokens + output_tokens
    )


class Brain(BaseChatModel):
    """A chat model whose every reply to tools is a legal call. Subclasses write `_generate(tools=, n=, seed=)`."""

    seed: int = 0
    """Used where a call of the model names no seed of its own."""

    def bind_tools(
        self, tools: Sequence[Tool], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This brain with tools: BaseTool, pydantic class, callable, or OpenAI-format dict (obeyed exactly)."""
        return self.bind(tools=list(tools), tool_choice=tool_choice, **kwargs)
