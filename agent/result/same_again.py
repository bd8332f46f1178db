"""What it takes to make the same run again, in words: for the model card and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings


def same_again(settings: Settings, environment: Mapping[str, Any]) -> str:
    """The sentences for one run.

    Args:
        settings: those of the run.
        environment: the run's `environment.json`.
    """
    sentences = [
        "The same command makes the same candidates and the same bytes again, with these versions, on the same kind of "
        f"device ({environment.get('device', 'not stated')}) with as many threads, and with a memory that knows of "
        "this model what this run's knew when it began: a file of its own (--memory), where that was nothing."
    ]
    brain = ARMS[settings.arm].asks_brain
    if brain and settings.brain == "vllm":
        sentences.append("What the brain answers is up to the server that it runs in, and may differ.")
    if brain and settings.benchmarks:
        sentences.append(
            "The brain reads the latencies it asks for, which are never measured twice alike: candidates may differ "
            "from there on, but not with --benchmarks 0."
        )
    if settings.minutes is not None:
        sentences.append("A limit in minutes may end the search at another candidate.")
    return " ".join(sentences)
