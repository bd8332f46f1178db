"""Latency in llama.cpp, which serves models without a GPU: GGUF files of random weights, as `export` would write them.

One process of the environment that has llama-cpp-python times any number of profiles beside the dense model, which is
written in the same architecture and type. The two are timed in turn where both fit in memory; else the dense model
once, before the others. A file is gone as soon as it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from self_pruner.memory.partials import scratch
from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.child import child
from self_pruner.tools.export.gguf.file import GgufFacts, GgufType, write_gguf
from self_pruner.tools.export.gguf.weights import PrunedWeights
from self_pruner.tools.latency.answered import SECONDS, answered
from self_pruner.tools.latency.measure import LatencyReport
from self_pruner.tools.latency.shapes import meta_model
from self_pruner.tools.latency.table import Timer
from self_pruner.tools.models.families import geometry
from self_pruner.tools.profiles.space import Space

SCRIPT = Path(__file__).with_name("llama_times.py")
TYPE: GgufType = "f16"  # of the matrices


@dataclass(frozen=True, slots=True)
class LlamaRequest:
    """How models are loaded, and what is asked of them."""

    python: Path  # of an environment that has llama-cpp-python
    prompt: int  # tokens
    decode: int
    batch: int
    repeats: int
    threads: int
    bias: bool = False  # whether output projections have biases that make up for removed units
    together: bool = True  # whether memory holds two models
    seconds: float = SECONDS  # that the timing of one model may take


@contextmanager
def timing_in_llama_cpp(config: Any, space: Space, request: LlamaRequest) -> Iterator[Timer]:
    """What times profiles of `space` in llama.cpp beside the dense model of `config`, for as long as the block lasts.

    Raises:
        ExportError: llama.cpp cannot run this model, or there is no room on the disk for its file.
        EngineError: the engine does not start, or refuses a model; the sentence ends with the last thing it said.
    """
    with scratch("llama") as temporary:
        root = Path(temporary)
        names = ("prompt", "decode", "batch", "repeats", "threads", "together")
        dense = write_shape(root / "dense.gguf", config, space, space.dense(), request.bias)
        setup = {"dense": str(dense), **{name: getattr(request, name) for name in names}}
        (root / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
        with child([str(request.python), str(SCRIPT), str(root / "setup.json")], root, {}) as process:

            def time(profile: Profile) -> LatencyReport:
                path = write_shape(root / "candidate.gguf", config, space, profile, request.bias)
                try:
                    return answered(process, {"file": str(path)}, request, "llama.cpp", request.seconds)
                finally:
                    path.unlink(missing_ok=True)  # there still where it was not loaded

            yield time


def write_shape(path: Path, config: Any, space: Space, profile: Profile, bias: bool) -> Path:
    """A GGUF file with random weights of the shapes that `profile` gives, for token ids alone; never all in memory."""
    sizes = space.sizes(profile)
    model = meta_model(config, sizes, bias=bias)
    widest = max(parameter.shape[-1] for parameter in model.parameters())
    row = torch.empty(widest).uniform_(-0.02, 0.02, generator=torch.Generator().manual_seed(0))
    outline = dict(model.named_parameters())
    if config.tie_word_embeddings:
        outline.pop("lm_head.weight", None)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        # every row of a matrix is the same one: a view of it, until it is written
        return ((name, row[: one.shape[-1]].expand(one.shape)) for name, one in outline.items())

    weights = PrunedWeights(config, geometry(config), sizes, outline, tensors)
    return write_gguf(weights, None, path, GgufFacts("shape", config.model_type, 0.0), type=TYPE).path
