"""What every brain has in common: tools become schemas, schemas become replies.

A brain is a LangChain chat model that always answers tools with one legal call a sample. The target model, the scripted
controls and any later engine differ in `replies_to` alone, so the graph cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from self_pruner.agent.brain.pieces import Piece, chunk, last_chunk, pieces_of
from self_pruner.agent.brain.schema import rewritten
from self_pruner.memory.errors import BrainError

Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
NOT_FOR_ENGINES = ("title", "description", "default", "examples", "discriminator", "deprecated")
Offer = list["CallSchema"] | None  # the calls that are legal; None where any text is


@dataclass(frozen=True, slots=True)
class CallSchema:
    """One tool and the JSON schema of the arguments it may be given now."""

    name: str
    parameters: Mapping[str, Any]


def closed(schema: Any) -> Any:
    """The schema with every object that lists its properties closed to others, unless it says otherwise."""

    def shut(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "additionalProperties": one.get("additionalProperties", False)} if "properties" in one else one

    return rewritten(schema, shut)


def call_schemas(tools: Sequence[Tool], tool_choice: Any = None) -> list[CallSchema]:
    """Tools in any form LangChain knows as legal calls, narrowed by `tool_choice`.

    `tool_choice` is a tool's name, an OpenAI-style dict naming one, or anything else ("auto", "any", "required", None)
    for any of them: a brain with tools always calls one.

    Raises:
        BrainError: there is no tool of that name.
    """
    calls = []
    for tool in tools:
        function = convert_to_openai_tool(tool)["function"]
        # where no parameters are stated, none are taken
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        calls.append(CallSchema(function["name"], closed(parameters)))
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

    def plain(one: dict[str, Any]) -> dict[str, Any]:
        result = {name: value for name, value in one.items() if name not in ("const", *NOT_FOR_ENGINES)}
        if "const" in one:
            result["enum"] = [one["const"]]
        if "$ref" in one:
            result["$ref"] = f"#/$defs/{tool}.{str(one['$ref']).rsplit('/', 1)[-1]}"
        kinds = result.get("type")
        return {"anyOf": [{**result, "type": kind} for kind in kinds]} if isinstance(kinds, list) else result

    return rewritten(schema, plain)


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


def text_reply(text: str, *, cost: Mapping[str, Any]) -> AIMessage:
    """A sample that was to be a text and no call."""
    return AIMessage(content=text, usage_metadata=usage(cost), response_metadata=dict(cost))


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

    @property
    def model_id(self) -> str:
        """What the model is called."""
        return self._llm_type

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What the replies depend on beside the call: LangChain keeps them by this where it has a cache."""
        return {"model": self.model_id, "seed": self.seed}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        named = {"model": self.model_id, **{name: value for name, value in kwargs.items() if value is not None}}
        return super()._get_ls_params(stop=stop, **named) | LangSmithParams(ls_provider="self-pruner")

    def _should_stream(self, *, n: int = 1, variants: Any = None, **kwargs: Any) -> bool:
        """Several replies at a time are no stream, whoever listens."""
        return n == 1 and variants is None and super()._should_stream(**kwargs)

    def _should_use_protocol_streaming(self, *, n: int = 1, variants: Any = None, **kwargs: Any) -> bool:
        return n == 1 and variants is None and super()._should_use_protocol_streaming(**kwargs)

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
        """`n` replies to `messages`, a legal call each; where no tools are offered, a text each.

        `variants` gives each of the `n` replies tools of its own, in place of `tools`: one prompt, read once, and
        another choice for every reply. `stop` holds words that end a text; a call ends where it is whole.
        """
        offers = [offer_of(offer, tool_choice) for offer in variants or [tools]]
        offers = offers if variants else offers * n
        extra = options_of(stop, kwargs)
        replies = self.replies_to(messages, offers[:n], self.seed if seed is None else seed, **extra)
        for message in replies:
            message.response_metadata.setdefault("model_name", self.model_id)
        return ChatResult(generations=[ChatGeneration(message=message) for message in replies])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        tools: Any = None,
        tool_choice: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """One reply as it is written: its text, its call's name, the call's arguments in parts, at the end its cost."""
        seed = self.seed if seed is None else seed
        offer, extra = offer_of(tools, tool_choice), options_of(stop, kwargs)
        for piece in self.reply_in_pieces(messages, offer, seed, **extra):
            if isinstance(piece, AIMessage):
                piece.response_metadata.setdefault("model_name", self.model_id)
                message = last_chunk(piece)
            else:
                message = chunk(piece, call_id(seed, 0))
            made = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(message.text, chunk=made)
            yield made

    def replies_to(
        self, messages: list[BaseMessage], offers: Sequence[Offer], seed: int, **options: Any
    ) -> list[AIMessage]:
        """One reply for each offer of calls, drawn with `seed`; raises BrainError where there can be none.

        Among `options` are only those that the caller gave: `stop`, the words that end a text, and `model`, a name.
        """
        raise NotImplementedError

    def reply_in_pieces(
        self, messages: list[BaseMessage], offer: Offer, seed: int, **options: Any
    ) -> Iterator[Piece | AIMessage]:
        """The first of `replies_to` as it is written, and at the end all of it. Here: all at once."""
        (message,) = self.replies_to(messages, [offer], seed, **options)
        yield from pieces_of(message)
        yield message


def offer_of(tools: Any, tool_choice: Any) -> Offer:
    """The calls that `tools` allow; None where there are no tools, or none may be called, so that a text is wanted."""
    return None if tools is None or tool_choice == "none" else call_schemas(tools, tool_choice)


def options_of(stop: Sequence[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a caller's wishes a brain hears of, where they are given."""
    options = {"stop": tuple(word for word in stop or () if word), "model": given.get("model")}
    return {name: value for name, value in options.items() if value}
