"""Latency: what a candidate gains in milliseconds, with really smaller tensors, beside the dense model.

Sliced views of full-size weights would hide what a smaller model costs to read, so the candidate is built first. Both
run through the same forward pass and KV cache, in turn, the order swapped at every
repeat: on a busy machine a ratio of neighbours in time is worth more than two averages.

On a GPU both have a static KV cache and are replayed as CUDA graphs, as an engine that serves models runs them. When
operations are launched one by one, those of many layers take the time that the host needs to launch them. Where graphs
cannot be captured, both are launched one by one, and the report says so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.static_decoder import StaticDecoder
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_model


@dataclass(frozen=True)
class LatencyReport:
    """A candidate's latency and the dense model's: medians over repeats of the same request."""

    prefill_ms: float  # to read the whole prompt and give the first token
    decode_ms: float  # to give one more token for every sequence of the batch
    tokens_per_second: float  # generated tokens over the time of the whole request, prompt included
    dense_prefill_ms: float
    dense_decode_ms: float
    dense_tokens_per_second: float
    prefill_spread: float  # (slowest - fastest) / median over the repeats
    decode_spread: float
    dense_prefill_spread: float
    dense_decode_spread: float
    speedup_prefill: float  # median over repeats of dense / candidate, above 1 where the candidate is faster
    speedup_decode: float
    speedup: float  # the same of the whole request
    prompt_tokens: int
    decode_tokens: int
    batch: int
    repeats: int
    graph_fault: str = ""  # why both were launched one by one, where CUDA graphs were meant


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one request."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


def measure(
    elastic: ElasticModel,
    profile: Profile,
    *,
    prompt_tokens: int,
    decode_tokens: int,
    batch: int,
    repeats: int,
) -> LatencyReport:
    """Time one request on `profile` and on the dense model, in turn, `repeats` times after a warm-up.

    Args:
        elastic: the elastic model; its compensation applies.
        profile: the candidate.
        prompt_tokens: tokens of every prompt.
        decode_tokens: tokens generated greedily after the one the prompt gives.
        batch: prompts side by side.
        repeats: timed pairs.

    Raises:
        MeasurementError: a number below one, or a request longer than the model's context.
        ModelError: the profile is not one of this model.
    """
    for name, value in (("prompt", prompt_tokens), ("decode", decode_tokens), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise MeasurementError(f"a latency measurement needs at least 1 for {name!r}, got {value}.")
    context = elastic.model.config.max_position_embeddings
    if prompt_tokens + decode_tokens > context:
        raise MeasurementError(
            f"a request of {prompt_tokens} + {decode_tokens} tokens is longer than the model's context of {context}."
        )
    return in_turn(elastic.model, smaller_model(elastic, profile), prompt_tokens, decode_tokens, batch, repeats)


def in_turn(
    reference: PreTrainedModel,
    model: PreTrainedModel,
    prompt_tokens: int,
    decode_tokens: int,
    batch: int,
    repeats: int,
) -> LatencyReport:
    """Time one request on `model` and on the `reference`, which stands for the dense one, as `measure` does."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(reference.config.vocab_size, (batch, prompt_tokens), generator=generator)
    prompt = prompt.to(reference.device)
    requests, fault = requests_of((reference, model), prompt, decode_tokens)
    for one in requests:
        one()  # warm-up
    dense: list[Timing] = []
    candidate: list[Timing] = []
    for repeat in range(repeats):
        sides = [(requests[0], dense), (requests[1], candidate)]
        for one, timings in sides if repeat % 2 == 0 else reversed(sides):
            timings.append(one())
    return replace(report_of(dense, candidate, prompt_tokens, decode_tokens, batch), graph_fault=fault)


def device_in_words(name: str) -> str:
    """The name of a device as people read it; latencies are kept under that with "1 threads"."""
    return name.removesuffix("s") if name.endswith(" 1 threads") else name


def requests_of(
    models: Sequence[PreTrainedModel], prompt: Tensor, decode_tokens: int
) -> tuple[list[Callable[[], Timing]], str]:
    """What times a request of each model, all in the same way, and why not in graphs where those were meant."""
    fault = ""
    if in_graphs(prompt.device):
        try:
            return [graph_request(one, prompt, decode_tokens) for one in models], ""
        except (RuntimeError, MeasurementError) as error:
            fault = " ".join(str(error).split())[:200] or type(error).__name__
    return [partial(request, one, prompt, decode_tokens) for one in models], fault


def in_graphs(device: torch.device) -> bool:
    """Whether models are replayed as CUDA graphs on such a device."""
    return device.type == "cuda"


def way_of(device: torch.device) -> str:
    """How this process runs the models that it times on such a device, in words."""
    return "static KV cache and CUDA graphs" if in_graphs(device) else "growing KV cache"


def graph_request(model: PreTrainedModel, prompt: Tensor, decode_tokens: int) -> Callable[[], Timing]:
    """What times a request that is replayed as CUDA graphs.

    Raises:
        RuntimeError: it cannot be captured, or memory is short.
        MeasurementError: the model has no static KV cache of that length.
    """
    prefill, step = StaticDecoder(model, prompt, decode_tokens).captured()

    def timed() -> Timing:
        start = _now(prompt.device)
        prefill()
        read = _now(prompt.device)
        for _ in range(decode_tokens):
            step()
        return Timing(read - start, _now(prompt.device) - read)

    return timed


@torch.no_grad()
def request(model: PreTrainedModel, prompt: Tensor, decode_tokens: int) -> Timing:
    """Seconds to read `prompt` [batch, length] and then to generate `decode_tokens` more tokens greedily, eagerly."""
    start = _now(prompt.device)
    output = model(prompt, use_cache=True, logits_to_keep=1)
    read = _now(prompt.device)
    for _ in range(decode_tokens):
        token = output.logits[:, -1:].argmax(-1)
        output = model(token, past_key_values=output.past_key_values, use_cache=True)
    return Timing(read - start, _now(prompt.device) - read)


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def report_of(
    dense: Sequence[Timing], candidate: Sequence[Timing], prompt_tokens: int, decode_tokens: int, batch: int
) -> LatencyReport:
    """What timings of both say, made in pairs one after the other."""

    def median_ms(timings: Sequence[Timing], read: Callable[[Timing], float]) -> float:
        return 1e3 * statistics.median(map(read, timings))

    def spread(timings: Sequence[Timing], read: Callable[[Timing], float]) -> float:
        seconds = [read(timing) for timing in timings]
        return (max(seconds) - min(seconds)) / statistics.median(seconds)

    def speedup(read: Callable[[Timing], float]) -> float:
        return statistics.median(read(slow) / read(fast) for slow, fast in zip(dense, candidate, strict=True))

    prefill, decode, total = attrgetter("prefill"), attrgetter("decode"), attrgetter("total")
    return LatencyReport(
        prefill_ms=median_ms(candidate, prefill),
        decode_ms=median_ms(candidate, decode) / decode_tokens,
        tokens_per_second=batch * (1 + decode_tokens) * 1e3 / median_ms(candidate, total),
        dense_prefill_ms=median_ms(dense, prefill),
        dense_decode_ms=median_ms(dense, decode) / decode_tokens,
        dense_tokens_per_second=batch * (1 + decode_tokens) * 1e3 / median_ms(dense, total),
        prefill_spread=spread(candidate, prefill),
        decode_spread=spread(candidate, decode),
        dense_prefill_spread=spread(dense, prefill),
        dense_decode_spread=spread(dense, decode),
        speedup_prefill=speedup(prefill),
        speedup_decode=speedup(decode),
        speedup=speedup(total),
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        batch=batch,
        repeats=len(dense),
    )
