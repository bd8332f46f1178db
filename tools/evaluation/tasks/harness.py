"""The tasks on a model: lm-eval's own Hugging Face model asks and judges, whether of a folder or of an object.

It computes every choice after its own copy of the context; only choices of one token share a pass. A model whose layers
are streamed is asked twice: the first time to learn its batches, which then go through the layers together, as many as
memory has room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.tasks.rows import TaskName
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite, silent
from self_pruner.tools.pruning.smaller_model import last_states

Progress = Callable[[int, int], None]
STATES = 1 << 30  # bytes of hidden states that go through streamed layers together


class AskedModel(HFLM):  # type: ignore[misc, unused-ignore]
    """lm-eval's model, which says how far it is and refuses to judge by what is no likelihood."""

    def __init__(self, pretrained: Any, *, progress: Progress | None = None, **options: Any) -> None:
        """Arguments are lm-eval's; `progress` is called with (choices done, those in all) of the task in hand."""
        with silent():
            super().__init__(pretrained, **options)
        self.progress = progress
        self._done = self._asked = 0
        self._layers: Any = getattr(self.model, "smaller_layers", None)  # where they are streamed
        self._learning = False
        self._batches: deque[torch.Tensor] = deque()  # that were not computed yet
        self._states: deque[torch.Tensor] = deque()  # of those that were

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
        most = max((len(continuation) for _, _, continuation in requests), default=0)
        if most > self.max_length:
            raise MeasurementError(f"a choice has {most} tokens, and the model reads {self.max_length} at the most")
        self._done, self._asked = 0, len(requests)
        if self._layers is not None:
            self._batches.clear()
            self._states.clear()
            self._learning = True
            super()._loglikelihood_tokens(requests, *args, **kwargs)
            self._learning = False
        found = super()._loglikelihood_tokens(requests, *args, **kwargs)
        self._tell(self._asked)  # choices that shared a pass among them
        return found

    def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
        if self._learning:
            self._batches.append(inps)
            return torch.zeros((), device=self.device).expand(*inps.shape, self.model.config.vocab_size)
        if self._layers is not None:
            with torch.no_grad():
                logits = self.model.get_output_embeddings()(self._state())
        else:
            logits = super()._model_call(inps, *args, **kwargs)
        if not logits.sum(dtype=torch.float32).isfinite():
            raise MeasurementError("the logits of the pruned model are not finite")
        self._tell(self._done + len(inps))
        return logits

    def _state(self) -> torch.Tensor:
        """What the head reads of the next batch."""
        if not self._states:
            config, some = self.model.config, [self._batches.popleft()]
            each = config.hidden_size * self.model.dtype.itemsize
            room = STATES // each - some[0].numel()
            while self._batches and self._batches[0].numel() <= room:
                some.append(self._batches.popleft())
                room -= some[-1].numel()
            self._states.extend(last_states(self.model, self._layers, some))
        return self._states.popleft()

    def _tell(self, done: int) -> None:
        self._done = min(done, self._asked)
        if self.progress is not None:
            self.progress(self._done, self._asked)


def run_task(model: AskedModel, suite: TaskSuite, task: TaskName) -> dict[str, tuple[float, float | None]]:
    """Ask a model the rows of one task.

    Returns:
        By metric its value and standard error, None for a single row: acc, and acc_norm where the task has it (the
        likelihood divided by the characters of the choice).

    Raises:
        MeasurementError: its logits are not finite, or a choice is longer than its context.
        TaskDataError: the rows cannot be had.
    """
    asked = suite.task(task)
    with silent():
        results = evaluate(model, {"tasks": {task: asked}}, log_samples=False)
    found = results["results"][task]
    return {
        metric: (float(found[f"{metric},none"]), _number(found[f"{metric}_stderr,none"])) for metric in METRICS[task]
    }


def _number(value: float | str) -> float | None:
    return None if isinstance(value, str) else float(value)  # "N/A" for a single row
