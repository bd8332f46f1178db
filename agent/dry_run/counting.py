"""Tokens of texts and prompts before the model is here: by its tokenizer, or by characters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.page import render
from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.settings import Settings
from self_pruner.prompts.templates import Messages

CHARACTERS = 2  # a token: few, so that no prompt has more tokens than are counted


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts with a transformers tokenizer; None counts `CHARACTERS` a token."""

    tokenizer: Any

    def of_text(self, text: str) -> int:
        """Tokens of a text."""
        if self.tokenizer is None:
            return math.ceil(len(text) / CHARACTERS)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def of_messages(self, messages: Messages) -> int:
        """Tokens of a prompt, the chat template's own included."""
        if self.tokenizer is None:
            return self.of_text(messages.system + messages.turn)
        return len(render(self.tokenizer, [SystemMessage(messages.system), HumanMessage(messages.turn)]))


def room(settings: Settings, target: Target) -> int:
    """Tokens that a prompt may have beside the brain's longest reply."""
    brain = TargetBrain(
        model=target.outline.model,
        tokenizer=target.outline.tokenizer,
        thought_tokens=settings.thought_limit(target.budget.space.params(target.budget.space.dense())),
        max_call_tokens=settings.call_tokens,
    )
    limit = brain.prompt_limit
    return target.outline.model.config.max_position_embeddings if limit is None else limit
