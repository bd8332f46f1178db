"""What every brain has in common: tools become schemas, schemas become replies.

A brain is a LangChain chat model that always answers with one legal call a sample. The target model, the scripted
controls and any later engine differ in `replies_to` alone, so the graph cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from self_pruner.agent.brain.page import render
from self_pruner.memory.errors import BrainError

Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool


@dataclass(frozen=True, slots=True)
class CallSchema:
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


def call_schemas(tools: Sequence[Tool], tool_choice: Any = None) -> list[CallSchema]:
    """Tools in any form LangChain knows as legal calls, narrowed by `tool_choice`.

    `tool_choice` is a tool's name, an OpenAI-style dict naming one, or anything else ("auto", "any", "required", None)
    for any of them: a brain with tools always calls one. "none" leaves no tool.

    Raises:
        BrainError: there is no tool of that name.
    """
    if tool_choice == "none":
        return []
    calls = []
    for tool in tools:
        function = convert_to_openai_tool(tool)["function"]
        calls.append(CallSchema(function["name"], closed(function.get("parameters") or {"type": "object"})))
    if isinstance(tool_choice, Mapping):
        tool_choice = tool_choice.get("function", tool_choice).get("name")
    if isinstance(tool_choice, str) and tool_choice not in ("auto", "any", "required"):
        chosen = [call for call in calls if call.name == tool_choice]
        if not chosen:
            raise BrainError(f"there is no tool {tool_choice!r}; there are {[call.name for call in calls]}")
        return chosen
    return calls


def reply_schema(calls: Sequence[CallSchema], thought: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a reply may be: one of the calls by its name and arguments, behind a `thought` of that schema.

    Raises:
        BrainError: there is no call.
    """
    if not calls:
        raise BrainError("no call is legal, so there is nothing the brain could say")
    definitions: dict[str, Any] = {}
    branches = []
    for call in calls:
        parameters = dict(call.parameters)
        for name, schema in {**parameters.pop("$defs", {}), **parameters.pop("definitions", {})}.items():
            definitions[f"{call.name}.{name}"] = portable(schema, call.name)
        fields = {"name": {"enum": [call.name]}, "arguments": portable(parameters, call.name)}
        if thought is not None:
            fields = {"thought": thought, **fields}
        branches.append(
            {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        )
    schema = branches[0] if len(branches) == 1 else {"anyOf": branches}
    return {**schema, "$defs": definitions} if definitions else schema


def portable(schema: Any, tool: str) -> Any:
    """The schema in words that every engine takes, with references into the definitions of `tool`.

    Annotations go, constants become choices of one, and a list of types becomes alternatives.
    """
    if isinstance(schema, list):
        return [portable(element, tool) for element in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(schema.get("type"), list):
        return portable({"anyOf": [{**schema, "type": kind} for kind in schema["type"]]}, tool)
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "const":
            result["enum"] = [value]
        elif name == "enum":
            result[name] = value
        elif name == "$ref":
            result[name] = f"#/$defs/{tool}.{str(value).rsplit('/', 1)[-1]}"
        elif name == "properties":
            result[name] = {field: portable(inner, tool) for field, inner in value.items()}
        elif name not in ("title", "description", "default", "examples", "discriminator", "deprecated"):
            result[name] = portable(value, tool)
    return result


def reply(
    thought: str, name: str, arguments: Mapping[str, Any], *, seed: int, index: int, cost: Mapping[str, Any]
) -> AIMessage:
    """Sample `index` of the turn drawn with `seed` as a message: the thought is the content, the call its tool call.

    `cost` goes to `response_metadata`; "prompt_tokens" and "output_tokens" in it make the usage.
    """
    return AIMessage(
        content=thought,
        tool_calls=[{"name": name, "args": dict(arguments), "id": call_id(seed, index), "type": "tool_call"}],
        usage_metadata=usage(cost),
        response_metadata=dict(cost),
    )


def broken_reply(thought: str, text: str, fault: str, *, seed: int, index: int, cost: Mapping[str, Any]) -> AIMessage:
    """A sample that holds no call, only `text`, with the sentence that says why."""
    call = {"name": None, "args": text, "id": call_id(seed, index), "error": fault, "type": "invalid_tool_call"}
    return AIMessage(
        content=thought, invalid_tool_calls=[call], usage_metadata=usage(cost), response_metadata=dict(cost)
    )


def call_id(seed: int, index: int) -> str:
    """The id of sample `index` of the turn drawn with `seed`: the same in a resumed run."""
    return f"call_{seed}_{index}"


def usage(cost: Mapping[str, Any]) -> UsageMetadata:
    """Tokens read and written, in LangChain's form."""
    read, written = cost["prompt_tokens"], cost["output_tokens"]
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


class Brain(BaseChatModel):
    """A chat model whose every reply to tools is a legal call. Subclasses write `replies_to`."""

    seed: int = 0
    """Used where a call of the model names no seed of its own."""

    def bind_tools(
        self, tools: Sequence[Tool], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This brain with tools: BaseTool, pydantic class, callable, or OpenAI-format dict (obeyed exactly)."""
        return self.bind(tools=list(tools), tool_choice=tool_choice, **kwargs)

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
        """`n` replies to `messages`, a legal call each.

        `variants` gives each of the `n` replies tools of its own, in place of `tools`: one prompt, read once, and
        another choice for every reply.
        """
        offers = [call_schemas(offer, tool_choice) for offer in variants or [tools or ()] * n]
        replies = self.replies_to(messages, offers[:n], self.seed if seed is None else seed)
        return ChatResult(generations=[ChatGeneration(message=message) for message in replies])

    def replies_to(self, messages: list[BaseMessage], offers: Sequence[list[CallSchema]], seed: int) -> list[AIMessage]:
        """One reply for each offer of calls, drawn with `seed`; raises BrainError where there can be none."""
        raise NotImplementedError


class PromptedBrain(Brain):
    """A brain that is a language model, here or elsewhere."""

    tokenizer: Any = Field(repr=False)  # transformers.PreTrainedTokenizerFast of the target model
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    thought_tokens: int = Field(default=32, ge=0)  # of the line before a call; 0 for none
    max_call_tokens: int = Field(default=1024, gt=0)

    @property
    def reply_tokens(self) -> int:
        """Tokens that the longest reply may have."""
        return self.thought_tokens + self.max_call_tokens

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its reply together; None where there is no limit, or none is known."""
        raise NotImplementedError

    @property
    def prompt_limit(self) -> int | None:
        """Tokens a prompt may have beside the longest reply; None without a limit."""
        return None if self.context is None else self.context - self.reply_tokens

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of the whole prompt by the target model's tokenizer, the chat template's own included."""
        return len(render(self.tokenizer, messages))
