"""What came back from the brain: which replies are legal calls, and what the trace says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall

from self_pruner.agent.brain.schema import violations
from self_pruner.agent.run_files.trace import Reply, Think
from self_pruner.agent.search.legal_calls import Call, Schema
from self_pruner.prompts.templates import Messages


def replies_of(
    brain: BaseChatModel,
    messages: Messages,
    tools: Sequence[Schema],
    variants: Sequence[Sequence[Schema]],
    count: int,
    seed: int,
) -> list[BaseMessage]:
    """Ask `brain` for `count` replies to one prompt; each of `variants`, where there are any, narrows one of them."""
    spoken: list[BaseMessage] = [SystemMessage(messages.system), HumanMessage(messages.turn)]
    extra: dict[str, Any] = {"variants": [list(offer) for offer in variants]} if variants else {}
    result = brain.generate([spoken], tools=list(tools), n=count, seed=seed, **extra)
    return [generation.message for generation in result.generations[0]]  # type: ignore[union-attr]


def legal_replies(replies: Sequence[BaseMessage], offers: Sequence[Sequence[Schema]]) -> tuple[list[Call], list[str]]:
    """The legal calls among the replies, and a sentence for each reply that holds none.

    Args:
        replies: of one turn.
        offers: the tools that each of them could choose from.
    """
    legal: list[Call] = []
    faults: list[str] = []
    for reply, tools in zip(replies, offers, strict=False):  # a foreign chat model may say less than it is asked for
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        spoken = _call(reply)
        if spoken is None:
            faults.append("the reply holds no call")
        elif spoken["name"] not in schemas:
            faults.append(f"{spoken['name']!r} is not legal now, only {' or '.join(schemas)}")
        elif found := violations(schemas[spoken["name"]], spoken["args"]):
            faults.append(found[0])
        else:
            legal.append({"name": spoken["name"], "arguments": spoken["args"]})
    return legal, faults


def record_of(replies: Sequence[BaseMessage], **values: Any) -> Think:
    """The record of a turn in which the brain was asked; its replies share one prompt and one batch."""
    costs = [reply.response_metadata for reply in replies]
    first = costs[0] if costs else {}
    usages = [reply.usage_metadata for reply in replies if isinstance(reply, AIMessage)]
    return Think(
        replies=tuple(_told(reply) for reply in replies),
        input_tokens=int(first.get("prompt_tokens", 0)),
        cached_tokens=int(first.get("cached_tokens", 0)),
        output_tokens=sum(usage["output_tokens"] for usage in usages if usage),
        decode_steps=max((int(cost.get("decode_steps", 0)) for cost in costs), default=0),
        forced_tokens=sum(int(cost.get("forced_tokens", 0)) for cost in costs),
        **values,
    )


def _told(reply: BaseMessage) -> Reply:
    spoken = _call(reply)
    return Reply(
        raw=str(reply.response_metadata.get("raw", reply.content)),
        thought=str(reply.content),
        call={"name": spoken["name"], "args": spoken["args"]} if spoken else None,
    )


def _call(reply: BaseMessage) -> ToolCall | None:
    """The first call of a reply, where it holds one."""
    return reply.tool_calls[0] if isinstance(reply, AIMessage) and reply.tool_calls else None
