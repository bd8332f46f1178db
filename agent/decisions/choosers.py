"""How a brain's probabilities are had: exactly, from a model in this process, or from samples, from any other brain."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from scipy.special import softmax

from self_pruner.agent.brain.calls import call_schemas
from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.grammar import call_grammar, check_grammar
from self_pruner.agent.brain.page import render
from self_pruner.agent.brain.scripted import ScriptedBrain
from self_pruner.agent.decisions.kinds.kind import one_of
from self_pruner.agent.decisions.probabilities import Spellings, score, spellings, written
from self_pruner.agent.prepare.brain import counter_of, room_of
from self_pruner.agent.search.legal_calls import Schema
from self_pruner.agent.search.replies import legal_replies
from self_pruner.memory.errors import BrainError
from self_pruner.prompts.fit import prompt_of
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import Hints, Variables

EXACT = "exact"  # how probabilities are had that are no shares of samples
UNLIMITED = 1 << 30  # tokens of context of a brain that reads none


@dataclass(frozen=True, slots=True)
class Said:
    """The probabilities of the options in the order in which they were asked for, and what they cost."""

    probabilities: list[float]
    prompt_tokens: int
    read: int
    seconds: float
    illegal: int = 0
    shown: str = ""  # all that it was shown: whether the order of the options made a difference to it


class Chooser:
    """A brain that decides."""

    name: str  # as in a table
    brain: BaseChatModel
    how: str  # where its probabilities are from
    fingerprint: str | None = None  # of its config and weights, where they are known
    place: str | None = None  # the folder that its own is in, or its owner on the hub

    @property
    def temperature(self) -> float | None:
        """At which it decides; None of a control."""
        return getattr(self.brain, "temperature", None) if reads(self) else None

    def choose(
        self, prompts: PromptSet, variables: Variables, tool: Schema, calls: Sequence[dict[str, Any]], name: str
    ) -> Said:
        """The probability of each of the calls.

        Args:
            prompts: what the brain reads.
            variables: what the prompt is made of.
            tool: what exact probabilities are under; a brain that is sampled is offered the calls alone.
            calls: the options, different ones.
            name: the seed of what is drawn.
        """
        raise NotImplementedError


def reads(chooser: Chooser) -> bool:
    """Whether it reads prompts, so that one differs from another for it."""
    return not (isinstance(chooser, SampledChooser) and isinstance(chooser.brain, ScriptedBrain))


def messages_of(brain: BaseChatModel, prompts: PromptSet, variables: Variables, context: int = UNLIMITED) -> Messages:
    """The prompt as a run makes it: without hints where the set wants none, shortened to what `brain` can read.

    Args:
        brain: who reads it.
        prompts: the set.
        variables: what it is made of.
        context: tokens that a brain may read which knows no limit of its own.
    """
    shown = variables if prompts.hints else replace(variables, hints=Hints())
    return prompt_of(prompts, shown, counter_of(brain), room_of(brain, context)).prompt


@dataclass
class ExactChooser(Chooser):
    """A language model in this process: the exact probability of every option."""

    name: str
    brain: TargetBrain  # without a thought before its calls
    how: str = EXACT
    fingerprint: str | None = None
    place: str | None = None
    _spelled: dict[str, Spellings] = field(default_factory=dict)  # by the options, whatever their order

    def choose(
        self, prompts: PromptSet, variables: Variables, tool: Schema, calls: Sequence[dict[str, Any]], name: str
    ) -> Said:
        """The probabilities, normalised over the options."""
        messages = messages_of(self.brain, prompts, variables)
        spelled = self._spellings(tool, calls)
        prompt = render(self.brain.tokenizer, [SystemMessage(messages.system), HumanMessage(messages.turn)])
        found = score(self.brain, prompt, spelled)
        by_text = dict(zip(spelled.texts, softmax(found.log_probabilities).tolist(), strict=True))
        return Said(
            [by_text[written(call)] for call in calls],
            found.prompt_tokens,
            found.read,
            found.seconds,
            shown=messages.text,
        )

    def _spellings(self, tool: Schema, calls: Sequence[dict[str, Any]]) -> Spellings:
        """Those of a set of options; they follow from the grammar, so every prompt has the same."""
        texts = [written(call) for call in calls]
        key = json.dumps(sorted(text.decode() for text in texts))
        if key not in self._spelled:
            grammar = call_grammar(call_schemas([tool]), 0)
            check_grammar(grammar, self.brain.alphabet)
            vocab = self.brain.model.get_output_embeddings().weight.shape[0]
            self._spelled[key] = spellings(grammar, self.brain.alphabet, vocab, texts)
        return self._spelled[key]


@dataclass
class SampledChooser(Chooser):
    """Any other brain: how often it takes each option in `draws` replies."""

    name: str
    brain: BaseChatModel
    draws: int
    how: str = field(init=False)

    def __post_init__(self) -> None:
        self.how = f"{self.draws} samples an order"

    def choose(
        self, prompts: PromptSet, variables: Variables, tool: Schema, calls: Sequence[dict[str, Any]], name: str
    ) -> Said:
        """Shares of the replies that are options; the others are counted.

        Raises:
            BrainError: none is.
        """
        start = time.perf_counter()
        messages = messages_of(self.brain, prompts, variables)
        spoken: list[BaseMessage] = [SystemMessage(messages.system), HumanMessage(messages.turn)]
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        offer = one_of(calls)  # under a wider grammar hardly any reply would be an option
        result = self.brain.generate([spoken], tools=[offer], n=self.draws, seed=seed)
        replies = [generation.message for generation in result.generations[0]]  # type: ignore[union-attr]
        legal, faults = legal_replies(replies, [[offer]] * len(replies))
        if not legal:
            raise BrainError(f"{self.name} wrote no option in {self.draws} replies: {(faults or ['nothing'])[0]}")
        said = [calls.index(call) for call in legal]
        shares = [said.count(index) / len(said) for index in range(len(calls))]
        usages = [reply.usage_metadata for reply in replies if isinstance(reply, AIMessage) and reply.usage_metadata]
        prompt = int(replies[0].response_metadata.get("prompt_tokens", 0))
        read = sum(usage["total_tokens"] for usage in usages)
        shown = messages.text if reads(self) else json.dumps(calls)
        return Said(shares, prompt, read, time.perf_counter() - start, len(faults), shown)
