"""A checkpoint measured in a process of its own, by lm-eval's own Hugging Face model, as anybody would measure it.

Nothing of the elastic model takes part, so the figures are those of the files on the disk. Each one is handed on as
soon as it is there.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import self_pruner
from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.partials import scratch
from self_pruner.tools.engines.child import child
from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.evaluation.tasks.rows import TaskName, file_of
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite
from self_pruner.tools.models.checkpoint import read_config
from self_pruner.tools.models.foreign_code import is_ours, vouched

SCRIPT = Path(__file__).with_name("stock.py")
ROOT = Path(self_pruner.__path__[0]).parent  # where a new process finds this package


@dataclass(frozen=True, slots=True)
class Request:
    """What one process measures of one folder."""

    folder: str
    rows: str  # folder of <task>.jsonl files
    tasks: tuple[TaskName, ...]
    text: str | None  # file of the text that perplexity is measured on
    length: int  # tokens of its windows
    dtype: str
    device: str
    batch: int  # requests of a task side by side
    trust_remote_code: bool = False  # whatever it is
    exported: bool = False  # an exported checkpoint, whose code is ours
    parallelize: bool = False  # the layers are shared out over all GPUs


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """One task: every metric's value and its standard error, None for a single row."""

    task: TaskName
    metrics: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class TextFigures:
    """Perplexity over windows that do not overlap, each read from its own beginning."""

    perplexity: float
    standard_error: float | None  # from the spread of the windows, by the delta method; None for a single one
    windows: int


@contextmanager
def rows_on_disk(suite: TaskSuite, tasks: Sequence[TaskName]) -> Iterator[str]:
    """The rows of some tasks as files, for as long as the block lasts, so that both models are asked the very same."""
    with scratch("rows") as folder:
        for task in tasks:
            lines = (json.dumps(row) + "\n" for row in suite.rows(task))
            file_of(Path(folder), task).write_text("".join(lines), encoding="utf-8")
        yield folder


def measured(
    request: Request, progress: Callable[[int, int], None] | None = None
) -> Generator[TaskFigures | TextFigures, None, None]:
    """The figures of a request, one by one, from a new process that ends with this one.

    Args:
        request: what to measure.
        progress: called with (requests or windows done, those in all) of the measurement in hand.

    Raises:
        MeasurementError: the folder does not load or cannot be measured; it ends with the last thing that was said.
        SelfPrunerError: what `vouched` raises of an exported checkpoint.
    """
    with _placed(request) as placed, scratch("stock") as temporary:
        asked = Path(temporary) / "request.json"
        asked.write_text(json.dumps(asdict(placed)), encoding="utf-8")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {"HF_DATASETS_OFFLINE": "1", "PYTHONPATH": path}
        with child([sys.executable, str(SCRIPT), str(asked)], Path(temporary), environment) as process:
            for line in process.lines():
                found = _read(line)
                if isinstance(found, tuple):
                    if progress is not None:
                        progress(*found)
                elif found is not None:
                    yield found
            fault = process.fault()
            if process.process.returncode:
                raise MeasurementError(f"{request.folder!r} cannot be measured: {fault}")


@contextmanager
def _placed(request: Request) -> Iterator[Request]:
    """The request for the folder that is loaded: of an exported checkpoint one with this project's code."""
    if request.trust_remote_code or not request.exported:
        yield request
        return
    with vouched(Path(request.folder)) as place:
        yield replace(request, folder=str(place), trust_remote_code=is_ours(read_config(place / "config.json")))


def _read(line: str) -> TaskFigures | TextFigures | tuple[int, int] | None:
    """One line of the process; what libraries print between is none."""
    try:
        said: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    if "progress" in said:
        done, total = said["progress"]
        return int(done), int(total)
    if "task" in said:
        metrics = {name: (float(value), error) for name, (value, error) in said["metrics"].items()}
        if set(metrics) != set(METRICS[said["task"]]):
            raise MeasurementError(f"the task {said['task']} came with the metrics {sorted(metrics)}")
        return TaskFigures(said["task"], metrics)
    return text_figures(said["nll"]) if "nll" in said else None


def text_figures(nll: Sequence[float]) -> TextFigures:
    """Perplexity from the mean negative log-likelihoods of windows, nats a token."""
    if not all(map(math.isfinite, nll)):
        raise MeasurementError("the model's logits are not finite on the perplexity text: try --dtype float32")
    found = perplexity(nll)
    error = found * statistics.stdev(nll) / math.sqrt(len(nll)) if len(nll) > 1 else None
    return TextFigures(found, error, len(nll))
