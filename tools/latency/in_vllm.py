"""Latency in vLLM, which will serve the model: shapes without weights, in a process of the engine's own environment.

One process times any number of profiles beside the dense model, which is loaded as vLLM loads it by itself, in its own
class: what a pruned model's format costs beside that class is part of what its user gets. The two are timed in turn
where both fit in memory; else the dense model once, before the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

from self_pruner.memory.partials import scratch
from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.child import child
from self_pruner.tools.export.checkpoint import MODELING_FILE, config_of
from self_pruner.tools.export.serving import Serving, vllm_options
from self_pruner.tools.latency.answered import SECONDS, answered
from self_pruner.tools.latency.measure import LatencyReport
from self_pruner.tools.latency.table import Timer
from self_pruner.tools.models.families import family_of
from self_pruner.tools.profiles.space import Space

SCRIPT = Path(__file__).with_name("vllm_times.py")
SHARE = 0.85  # of the free memory of a GPU that engines take


@dataclass(frozen=True, slots=True)
class VllmRequest:
    """How models are loaded, and what is asked of them."""

    python: Path  # of an environment that has vLLM
    serving: Serving  # the format of pruned models
    dtype: str
    prompt: int  # tokens
    decode: int
    batch: int
    repeats: int
    tensor_parallel: int = 1
    bias: bool = False  # whether output projections have biases that make up for removed units
    together: bool = True  # whether memory holds two models
    free: float = 1.0  # share of the GPU's memory that is free
    eager: bool = False  # no compiled graphs
    seconds: float = SECONDS  # that the timing of one model may take


@contextmanager
def timing_in_vllm(config: Any, space: Space, request: VllmRequest) -> Iterator[Timer]:
    """What times profiles of `space` in vLLM beside the dense model of `config`, for as long as the block lasts.

    Raises:
        EngineError: the engine does not start, or refuses a model; the sentence ends with the last thing it said.
    """
    with scratch("vllm") as temporary:
        root = Path(temporary)
        stock = type(config)(**{**config.to_dict(), "architectures": [family_of(config).architecture]})
        dense = _folder(root / "dense", stock, request)
        setup = {
            "dense": dense,
            "share": SHARE * request.free / (2 if request.together else 1),
            **{
                name: getattr(request, name)
                for name in ("dtype", "prompt", "decode", "batch", "repeats", "together", "eager")
            },
        }
        (root / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
        environment = {
            "VLLM_NO_USAGE_STATS": "1",
            # GiB; it takes half of the memory else
            "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # two engines in one process
        }
        with child([str(request.python), str(SCRIPT), str(root / "setup.json")], root, environment) as process:
            count = 0

            def time(profile: Profile) -> LatencyReport:
                nonlocal count
                count += 1
                smaller = config_of(
                    config, space, profile, dtype=request.dtype, serving=request.serving, bias=request.bias
                )
                asked = _folder(root / f"profile-{count}", smaller, request)
                return answered(process, asked, request, "vLLM", request.seconds)

            yield time


def _folder(path: Path, config: Any, request: VllmRequest) -> dict[str, Any]:
    """A checkpoint without weights, and how vLLM loads it."""
    path.mkdir()
    config.dtype = request.dtype
    config.save_pretrained(path)
    if "auto_map" in config.to_dict():
        copyfile(MODELING_FILE, path / MODELING_FILE.name)
    return {"folder": str(path), "options": vllm_options(path, request.tensor_parallel)}
