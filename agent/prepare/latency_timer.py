"""What times profiles: random weights in this process, or vLLM or llama.cpp on shapes of such weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError
from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.installed import LLAMA_CPP, VLLM
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.export.gguf.file import check_gguf
from self_pruner.tools.latency.in_llama_cpp import TYPE, LlamaRequest, timing_in_llama_cpp
from self_pruner.tools.latency.in_vllm import VllmRequest, timing_in_vllm
from self_pruner.tools.latency.measure import LatencyReport, in_turn, way_of
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.latency.table import Timer
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.text.quantities import size
from self_pruner.tools.workbench import LatencyEngine

MEMORY = 0.6  # of what is free may be taken by the models that are timed
EngineName = Literal["torch", "vllm", "llama-cpp"]


def engine_name(settings: Settings, engine: EngineName | None = None) -> str:
    """What runs latency measurements, with its version; of vLLM and llama.cpp also the format of models in it."""
    engine = engine or settings.engine
    if engine == "vllm":
        return f"{VLLM.title} {VLLM.release} ({settings.target})"
    if engine == "llama-cpp":
        return f"llama.cpp in {LLAMA_CPP.title} {LLAMA_CPP.release} ({TYPE})"
    return f"torch {torch.__version__} ({way_of(torch.device(device_of(settings)))})"


def check_engine(settings: Settings) -> None:
    """Find out before anything is loaded whether the engine of latency measurements is there.

    Raises:
        EngineError: it is not; says what to install.
        SettingsError: it is not for this device.
    """
    if not (settings.benchmarks or settings.in_time):
        return
    engine = settings.engine if settings.engine != "torch" else served_in(settings)
    if settings.engine == "llama-cpp" and (device := device_of(settings)) != "cpu":
        raise SettingsError(f"--engine llama-cpp times models on the processor, and this run's device is {device}")
    if engine == "vllm":
        VLLM.python(settings.vllm_python)
    elif engine == "llama-cpp":
        LLAMA_CPP.python(settings.llama_python)


def served_in(settings: Settings) -> EngineName | None:
    """The engine that times a result beside torch: what serves models on such a device, where that is installed."""
    if settings.engine != "torch":
        return None
    if device_of(settings) == "cpu":
        return "llama-cpp" if LLAMA_CPP.is_there(settings.llama_python) else None
    return "vllm" if VLLM.is_there(settings.vllm_python) else None


def engines_of(settings: Settings, config: Any, space: Space) -> tuple[LatencyEngine, LatencyEngine | None]:
    """What times candidates, and what times the result beside it."""

    def engine(name: EngineName) -> LatencyEngine:
        return LatencyEngine(engine_name(settings, name), partial(timing, settings, config, space, name))

    # elsewhere than in this process models of random weights stand for the real ones
    own = LatencyEngine(engine_name(settings)) if settings.engine == "torch" else engine(settings.engine)
    other = served_in(settings) if settings.benchmarks or settings.in_time else None
    return own, engine(other) if other else None


@contextmanager
def timing(settings: Settings, config: Any, space: Space, engine: EngineName | None = None) -> Iterator[Timer]:
    """What times profiles of random weights beside the dense model, in `engine` or the one of the settings.

    Raises:
        SelfPrunerError: there is no room for two models in this process, or the engine is not there or refuses them.
    """
    check_length(settings, config)
    engine, device = engine or settings.engine, device_of(settings)
    dtype = getattr(torch, dtype_of(settings, device))
    itemsize = 2 if engine == "llama-cpp" else dtype.itemsize
    needed, free = 2 * itemsize * space.params(space.dense()), free_memory(device)
    prompt, decode, batch, repeats = request_of(settings)
    common: dict[str, Any] = {
        **{"prompt": prompt, "decode": decode, "batch": batch, "repeats": repeats},
        "bias": settings.compensation == "bias",
        "together": needed < MEMORY * free,
    }
    if engine == "vllm":
        vllm = VllmRequest(
            python=VLLM.python(settings.vllm_python),
            serving=settings.target,
            dtype=dtype_of(settings, device),
            tensor_parallel=settings.tensor_parallel,
            eager=device == "cpu",
            free=_free_share(device),
            **common,
        )
        with timing_in_vllm(config, space, vllm) as timer:
            yield timer
        return
    if engine == "llama-cpp":
        python = LLAMA_CPP.python(settings.llama_python)
        llama = LlamaRequest(python=python, threads=torch.get_num_threads(), **common)
        with timing_in_llama_cpp(config, space, llama) as timer:
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
        return in_turn(dense, smaller, prompt, decode, batch, repeats)

    yield time


def _free_share(device: str) -> float:
    """Share of a GPU's memory that another process can have now; 1 where there is no GPU."""
    if device == "cpu":
        return 1.0
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return free / total


def check_expressible(settings: Settings, config: Any) -> None:
    """Refuse a model that the engine of the settings cannot run, from its config.

    Raises:
        ExportError: says which layer and why.
    """
    if settings.engine == "llama-cpp" and (settings.benchmarks or settings.in_time):
        check_gguf(config)


def check_length(settings: Settings, config: Any) -> None:
    """Refuse a request that is longer than the model's context."""
    if settings.latency_prompt + settings.latency_decode > config.max_position_embeddings:
        raise SettingsError(
            f"--latency-prompt and --latency-decode must fit the model's context, {config.max_position_embeddings}"
        )


def request_of(settings: Settings) -> tuple[int, int, int, int]:
    """Prompt, decoded tokens, batch and repeats of a latency measurement."""
    return settings.latency_prompt, settings.latency_decode, settings.latency_batch, settings.latency_repeats
