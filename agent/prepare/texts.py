"""The texts and tasks of a run: what is read of which, for calibration, fitness and reporting.

The parts of a text share no passage. Several fitness texts take turns sequence by sequence; every reporting text stays
by itself.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from self_pruner.agent.settings.settings import SENSITIVITY_WINDOWS, Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.models.source import LoadedModel
from self_pruner.tools.text.local import NAMES
from self_pruner.tools.text.sources import text_source
from self_pruner.tools.text.split import Part
from self_pruner.tools.text.tokens import sequences

CPU_CALIBRATION, GPU_CALIBRATION = 16, 128  # sequences


class Wanted(NamedTuple):
    """What a run reads of one text."""

    part: Part
    text: str
    sequences: int
    length: int  # tokens a sequence
    least: int  # sequences that the text must have; more are a gain


def check_text(settings: Settings) -> None:
    """Find a text that is unknown, missing or damaged before a model is loaded; texts to be fetched come later."""
    for name in (settings.calibration, *settings.fitness_texts, *settings.reporting_texts):
        if name.lower() not in NAMES:
            text_source(name, "fitness")


def check_tasks(settings: Settings) -> TaskSuite | None:
    """Find task files that are missing or damaged before a model is loaded; tasks to be fetched come later.

    Returns:
        The tasks without a tokenizer: good for nothing but comparing them; None where they are none or on the hub.
    """
    if not settings.tasks or settings.task_data is None:
        return None
    suite = TaskSuite(None, settings.task_data, settings.task_rows)
    suite.read()
    return suite


def read_tasks(settings: Settings, tokenizer: Any, view: View) -> TaskSuite | None:
    """The tasks that the settings ask for, with all their rows; None where they ask for none."""
    if not settings.tasks:
        return None
    suite = TaskSuite(tokenizer, settings.task_data, settings.task_rows)
    with view.phase("Reading tasks"):
        suite.read()
    return suite


def reporting_key(name: str) -> str:
    """What the reporting part of the text `name` is called among the texts of a run."""
    return f"reporting {name}"


def wanted_texts(settings: Settings, longest: int, device: str) -> list[Wanted]:
    """What is read of which text, for a model with a context of `longest` tokens.

    Raises:
        SettingsError: a length that the context has no room for.
    """
    if settings.sequence_length > longest:
        raise SettingsError(f"--sequence-length must be at most the model's context, {longest}")
    timed = settings.benchmarks or settings.in_time
    if timed and settings.latency_prompt + settings.latency_decode > longest:
        raise SettingsError(f"--latency-prompt and --latency-decode must fit the model's context, {longest}")
    count = settings.calibration_sequences or (CPU_CALIBRATION if device == "cpu" else GPU_CALIBRATION)
    length = settings.sequence_length
    measured, ranked = (
        math.ceil(settings.sequences(tokens) / len(settings.fitness_texts))  # of each text
        for tokens in (settings.fitness_tokens, settings.ranking_tokens)
    )
    reported = settings.sequences(settings.reporting_tokens)
    return [
        Wanted("calibration", settings.calibration, count, min(settings.calibration_length, longest), count),
        *(Wanted("fitness", name, measured, length, ranked) for name in settings.fitness_texts),
        *(Wanted("reporting", name, reported, length, reported) for name in settings.reporting_texts),
    ]


def sensitivity_text(settings: Settings, available: int) -> dict[str, Any]:
    """Where in `available` fitness sequences sensitivities are measured: fields of a workbench.

    Sensitivities fit the tokens they are measured on by chance too. On other tokens than those that rank candidates,
    and others each time, that chance is not taken for progress. A text too short for even one such window
    lends the ranked tokens.
    """
    start, length = settings.sequences(settings.ranking_tokens), settings.sequences(settings.sensitivity_tokens)
    windows = min(SENSITIVITY_WINDOWS, (available - start) // length)
    if windows < 1:
        tokens = min(settings.sensitivity_tokens, settings.fidelity[-1])
        return {"sensitivity_start": 0, "sensitivity_windows": 1, "sensitivity_tokens": tokens}
    return {
        "sensitivity_start": start,
        "sensitivity_windows": windows,
        "sensitivity_tokens": settings.sensitivity_tokens,
    }


def read_texts(
    settings: Settings, loaded: LoadedModel, device: str, view: View
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The token ids [sequences, length] of all texts, whose parts share no passage, and digests of the texts.

    They are called "calibration", "fitness" and, one for each reporting text, `reporting_key` of its name. Several
    fitness texts take turns, sequence by sequence, so that every fidelity measures all of them.
    """
    texts: dict[str, Tensor] = {}
    digests: dict[str, str] = {}
    fitness: list[Tensor] = []
    wanted = wanted_texts(settings, loaded.model.config.max_position_embeddings, device)
    with view.phase("Reading text", unit="bytes") as progress:
        for part, source, n, tokens, least in wanted:
            text = text_source(source, part, cache=settings.cache, progress=progress)
            ids = sequences(text.documents, loaded.tokenizer, n, tokens, f"{source} ({part} part)", least)
            if (largest := int(ids.max())) >= loaded.model.config.vocab_size:
                raise ModelError(
                    f"the tokenizer of {loaded.name} writes token {largest}, and the model knows"
                    f" {loaded.model.config.vocab_size}: they do not belong together"
                )
            if part == "fitness":
                fitness.append(ids)
                digests[part] = " ".join([*digests.get(part, "").split(), text.digest[:16]])
            else:
                name = reporting_key(source) if part == "reporting" else part
                digests[name], texts[name] = text.digest[:16], ids
    shortest = min(map(len, fitness))
    texts["fitness"] = torch.stack([ids[:shortest] for ids in fitness], dim=1).flatten(0, 1)
    return texts, digests
