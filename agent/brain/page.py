"""Messages as the tokens that a model reads, whatever its tokenizer knows of chats; what brains that read share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from pydantic import Field

from self_pruner.agent.brain.calls import Brain
from self_pruner.agent.brain.chat_template import ChatTemplateError, applied, takes_system, unusable
from self_pruner.memory.errors import BrainError


def render(tokenizer: Any, messages: Sequence[BaseMessage]) -> list[int]:
    """Token ids of a prompt that ends where the reply begins.

    With a chat template if there is one that can be used; one that refuses the system role, or leaves out what it
    says, gets it as the beginning of the first user message. Base models get plain text, paragraph by paragraph. Tool
    results become user text, since many templates have no tool role, and neighbours of one role become one, since many
    alternate strictly.

    Raises:
        BrainError: the chat template takes other conversations, and not this one.
    """
    special = special_tokens(tokenizer)
    turns = alternating(messages, special)
    if not tokenizer.chat_template or unusable(tokenizer):
        text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
        return tokenizer(text)["input_ids"]
    if takes_system(tokenizer):
        with suppress(ChatTemplateError):
            return _ids(tokenizer, applied(tokenizer, turns))
    try:
        text = applied(tokenizer, alternating(messages, special, system="user"))
    except ChatTemplateError as error:
        raise BrainError(f"the model's chat template does not take this conversation: {error}") from error
    return _ids(tokenizer, text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def alternating(
    messages: Sequence[BaseMessage], special: Sequence[str], system: str = "system"
) -> list[dict[str, str]]:
    """Messages as turns {"role", "content"}, no two neighbours of one role."""
    turns: list[dict[str, str]] = []
    for message in messages:
        text = defused(message.text, special)
        if isinstance(message, SystemMessage):
            role = system
        elif isinstance(message, AIMessage):
            role = "assistant"
            said = [json.dumps({"name": call["name"], "arguments": call["args"]}) for call in message.tool_calls]
            text = "\n".join(part for part in [text, *said] if part)
        else:
            role = "user"
            if isinstance(message, ToolMessage):
                text = f"Result of {message.name or 'the call'}: {text}"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + text
        else:
            turns.append({"role": role, "content": text})
    return turns


def special_tokens(tokenizer: Any) -> list[str]:
    """All that the tokenizer reads as special: what its map names, and what was only added, as headers of turns are."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return list(dict.fromkeys([*tokenizer.all_special_tokens, *added]))


def defused(text: str, special: Sequence[str]) -> str:
    """The text with special tokens spelled out apart: a note that says `<|im_end|>` must not end a message."""
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def context_length(config: Any) -> int | None:
    """Tokens the model can attend to: its positions, or its window where some layers slide; None without a limit."""
    limits = [getattr(config, "max_position_embeddings", None)]
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    limits.append(window if slides else None)
    return min((limit for limit in limits if limit), default=None)


class PromptedBrain(Brain):
    """A brain that is a language model, here or elsewhere."""

    tokenizer: Any = Field(repr=False)  # transformers.PreTrainedTokenizerFast of the target model
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    thought_tokens: int = Field(default=32, ge=0)  # of the line before a call; 0 for none
    max_call_tokens: int = Field(default=1024, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)  # of a whole reply, in place of the two above together
    stop: list[str] | None = None  # words that end a text, where a call of the model names none

    @property
    def reply_tokens(self) -> int:
        """Tokens that the longest reply may have."""
        return self.max_tokens or self.thought_tokens + self.max_call_tokens

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its reply together; None where there is no limit, or none is known."""
        raise NotImplementedError

    def words_that_end(self, options: Mapping[str, Any]) -> list[str]:
        """Those that end a text: as a call of the model names them, or else this brain's own."""
        return list(options.get("stop") or [word for word in self.stop or () if word])

    @property
    def prompt_limit(self) -> int | None:
        """Tokens a prompt may have beside the longest reply; None without a limit."""
        return None if self.context is None else self.context - self.reply_tokens

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        sampled = ("temperature", "top_p", "thought_tokens", "max_call_tokens", "max_tokens")
        known = {name: getattr(self, name) for name in sampled}
        return {**super()._identifying_params, **known, "own_stop": self.stop}  # `stop` is that of a call

    def get_token_ids(self, text: str) -> list[int]:
        """Tokens of a text by the target model's tokenizer; LangChain would take GPT-2's, from the hub."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of the whole prompt by the target model's tokenizer, the chat template's own included."""
        return len(render(self.tokenizer, messages))
