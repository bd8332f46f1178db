"""lm-eval on the elastic model: the harness asks and judges, and the likelihoods are computed by our own blocks.

To the harness the elastic model at a profile is a language model like any other. It hands over all choices of all rows
of a task at once; those of one row are packed together (packing.py), and the result is that of lm-eval's own Hugging
Face model to rounding. Tokens are made as there: a choice's tokens are what its text adds to those of the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.evaluator import evaluate

from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.likelihood import LikelihoodError, likelihoods
from self_pruner.tools.evaluation.tasks.packing import Question, pack
from self_pruner.tools.evaluation.tasks.rows import TaskName
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite, silent
from self_pruner.tools.pruning.elastic import ElasticModel

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What one metric of a task came to."""

    metric: str  # acc, or acc_norm: the likelihood divided by the characters of the choice
    value: float
    standard_error: float | None  # None for a single row


def run_task(
    elastic: ElasticModel, profile: Profile, suite: TaskSuite, task: TaskName, progress: Progress | None = None
) -> list[Accuracy]:
    """Ask the elastic model at `profile` the rows of one task.

    Raises:
        LikelihoodError: its logits are not finite, or a choice is longer than its context.
        TaskDataError: the rows cannot be had.
    """
    return ask(ElasticLM(elastic, profile, suite.tokenizer, progress), suite, task)


def ask(model: LM, suite: TaskSuite, task: TaskName) -> list[Accuracy]:
    """Ask any model of the harness the rows of one task; TaskDataError where they cannot be had."""
    asked = suite.task(task)
    with silent():
        results = evaluate(model, {"tasks": {task: asked}}, log_samples=False)
    found = results["results"][task]
    return [
        Accuracy(metric, float(found[f"{metric},none"]), _number(found[f"{metric}_stderr,none"]))
        for metric in METRICS[task]
    ]


def _number(value: float | str) -> float | None:
    return None if isinstance(value, str) else float(value)  # "N/A" for a single row


class ElasticLM(TemplateLM):
    """The elastic model at one profile, as the harness sees a language model."""

    def __init__(
        self, elastic: ElasticModel, profile: Profile, tokenizer: Any, progress: Progress | None = None
    ) -> None:
        """Bind a model to a profile; `progress` is called with (tokens times layers done, those in all)."""
        super().__init__()
        self.elastic = elastic
        self.profile = profile
        self.tokenizer = tokenizer
        self.progress = progress

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is read as."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of `string`, begun as the tokenizer begins a text, but never twice."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(nats, greedy) of every continuation after its context; requests of one document share their prefix.

        Raises:
            LikelihoodError: a continuation is longer than the model's context, or the logits are not finite.
        """
        longest = self.elastic.model.config.max_position_embeddings
        documents = [list(group) for _, group in groupby(requests, lambda one: (one.task_name, one.doc_id))]
        questions = [[self._question(*request.args) for request in document] for document in documents]
        most = max(len(one.continuation) for choices in questions for one in choices)
        if most > longest:
            raise LikelihoodError(f"a choice has {most} tokens, and the model reads {longest} at the most")
        packs = [pack(choices, longest) for choices in questions]
        found = likelihoods(self.elastic, self.profile, packs, self.progress)
        return [(choice.nats, choice.greedy) for choices in found for choice in choices]

    def _question(self, context: str, continuation: str) -> Question:
        """The tokens of one request; an empty context is the token that begins a text."""
        if context:
            before, after = self._encode_pair(context, continuation)
        else:
            before, after = [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)
        return Question(tuple(before), tuple(after))

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("requests are scored by document, in loglikelihood")

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> NoReturn:
        """No task here asks for the likelihood of whole texts."""
        raise NotImplementedError("only multiple-choice tasks are measured")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> NoReturn:
        """No task here asks for generated text."""
        raise NotImplementedError("only multiple-choice tasks are measured")
