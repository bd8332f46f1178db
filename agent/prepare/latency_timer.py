"""What times profiles: random weights in this process, or vLLM on shapes without weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError
from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.vllm import RELEASE, vllm_python
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.latency.in_vllm import ALONE, TOGETHER, VllmRequest, timing_in_vllm
from self_pruner.tools.latency.measure import LatencyReport, in_turn
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.latency.table import Timer
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.text.quantities import size

MARGIN = 0.95  # of free memory, which others take some of meanwhile
MEMORY = 0.6  # of what is free may be taken by the models that are timed


def engine_name(settings: Settings) -> str:
    """What runs latency measurements, with its version; of vLLM also the format of pruned models in it."""
    return f"vLLM {RELEASE} ({settings.target})" if settings.engine == "vllm" else f"torch {torch.__version__}"


def check_engine(settings: Settings) -> None:
    """Find out before anything is loaded whether the engine of latency measurements is there.

    Raises:
        EngineError: it is not; says what to install.
    """
    if settings.engine == "vllm" and (settings.benchmarks or settings.in_time):
        vllm_python(settings.vllm_python)


@contextmanager
def timing(settings: Settings, config: Any, space: Space) -> Iterator[Timer]:
    """What times profiles of random weights beside the dense model, in the engine of the settings.

    Raises:
        SelfPrunerError: there is no room for two models in this process, or vLLM is not there or refuses them.
    """
    check_length(settings, config)
    device = device_of(settings)
    dtype = getattr(torch, dtype_of(settings, device))
    needed, free = 2 * dtype.itemsize * space.params(space.dense()), free_memory(device)
    if settings.engine == "vllm":
        together = needed < MEMORY * free
        share = engine_share(device, free, together)
        request = VllmRequest(
            python=vllm_python(settings.vllm_python),
            serving=settings.target,
            dtype=dtype_of(settings, device),
            prompt=settings.latency_prompt,
            decode=settings.latency_decode,
            batch=settings.latency_batch,
            repeats=settings.latency_repeats,
            tensor_parallel=settings.tensor_parallel,
            bias=settings.compensation == "bias",
            together=together,
            share=share,
            eager=device == "cpu",
        )
        with timing_in_vllm(config, space, request) as timer:
            yield timer
        return
    if needed > free:
        raise SettingsError(
            f"a latency table of {settings.model} needs two models of random weights, {size(needed)}, and "
            f"{size(free)} are free: measure it where there is room, and name its file with --latency-table"
        )
    dense = random_model(config, space.sizes(space.dense()), dtype=dtype, device=device)

    def time(profile: Profile) -> LatencyReport:
        smaller = random_model(config, space.sizes(profile), dtype=dtype, device=device)
        return in_turn(dense, smaller, *request_of(settings))

    yield time


def engine_share(device: str, free: int, together: bool) -> float:
    """The share of a GPU's memory for one engine: of what is free, which a run's own model may leave little of."""
    most = TOGETHER if together else ALONE
    if not device.startswith("cuda"):
        return most
    total = torch.cuda.mem_get_info(device)[1]
    return min(most, MARGIN * free / total / (2 if together else 1))


def check_length(settings: Settings, config: Any) -> None:
    """Refuse a request that is longer than the model's context."""
    if settings.latency_prompt + settings.latency_decode > config.max_position_embeddings:
        raise SettingsError(
            f"--latency-prompt and --latency-decode must fit the model's context, {config.max_position_embeddings}"
        )


def request_of(settings: Settings) -> tuple[int, int, int, int]:
    """Prompt, decoded tokens, batch and repeats of a latency measurement."""
    return settings.latency_prompt, settings.latency_decode, settings.latency_batch, settings.latency_repeats
