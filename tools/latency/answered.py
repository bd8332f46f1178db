"""Timings that a process of an engine's own environment answers with, a line of JSON for a model."""

from __future__ import annotations

import json
from typing import Any, Protocol

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.child import Child
from self_pruner.tools.latency.measure import LatencyReport, Timing, report_of

SECONDS = 1200.0  # that one answer may take: a giant is loaded and its graphs are made first


class Request(Protocol):
    """What is asked of every model."""

    @property
    def prompt(self) -> int:
        """Tokens of every prompt."""

    @property
    def decode(self) -> int:
        """Tokens that are decoded after the first."""

    @property
    def batch(self) -> int:
        """Prompts side by side."""


def answered(process: Child, asked: dict[str, Any], request: Request, title: str, seconds: float) -> LatencyReport:
    """What the process says of one model.

    Args:
        process: that of the engine.
        asked: the model, as its script wants it.
        request: what is timed.
        title: the engine's name.
        seconds: that it may take; then it is ended.

    Raises:
        EngineError: it has ended, gave no answer in time, or one that is no timing.
    """
    try:
        line = process.ask(json.dumps(asked), seconds)
        fault = "" if line else process.fault()
    except EngineError as error:
        fault = str(error)
    if fault:
        raise EngineError(f"{title} cannot time this model: {fault}")
    try:
        found = json.loads(line)
        dense, candidate = ([Timing(*map(float, one)) for one in found[name]] for name in ("dense", "candidate"))
    except (ValueError, TypeError, KeyError) as error:
        raise EngineError(f"{title} cannot time this model: it answered {line[:100].strip()!r}") from error
    return report_of(dense, candidate, request.prompt, request.decode, request.batch)
