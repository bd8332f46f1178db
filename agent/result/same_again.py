"""What it takes to make the same run again, in words: for the model card and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.text.quantities import counted


def same_again(
    settings: Settings, environment: Mapping[str, Any], told: Sequence[str] = (), exported: bool = False
) -> str:
    """The sentences for one run.

    Args:
        settings: those of the run.
        environment: the run's `environment.json`.
        told: notes of a person that its brain read.
        exported: whether the bytes are those of another command, which exports one of the candidates.
    """
    makes = "The same command makes the same candidates and the same bytes again"
    if exported:
        makes = "The first command makes the same candidates again, and the second the same bytes of this one"
    sentences = [
        f"{makes}, with these versions, on the same kind of "
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
    if told:
        sentences.append(
            f"Its brain read {notes(told)} of a person, which no command repeats: candidates may differ from there on."
        )
    return " ".join(sentences)


def told_sentence(told: Sequence[str]) -> str:
    """What a person told the run while it went on; empty where that is nothing."""
    if not told:
        return ""
    return f"The brain read {notes(told)} of a person: {'; '.join(told)}. The same settings alone make another run."


def notes(told: Sequence[str]) -> str:
    """How many they are, in words."""
    return counted(len(told), "note")
