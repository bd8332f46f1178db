"""How fast this machine does what a run does, from two seconds on random tensors of the model's own shapes.

One decoder layer and the head of the target model stand for all of it: they are made of random numbers in the run's
number type on the run's device, so no weights are needed, and no more memory than one layer and one head take. The two
are timed in turn, because that is how a model meets its weights: what was used a moment ago has left the cache by the
time it is used again. The rest is multiplication.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from self_pruner.tools.evaluation.fitness import TOP_K, bucketed_kl, split
from self_pruner.tools.evaluation.targets import HEAD_TOKENS

REPEATS = 15  # timings of one thing at the most
SHARE = 0.15  # of the seconds that one timing may take
NOISE = 1 << 20  # random numbers, repeated to fill tensors of any size quickly


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of the parts of a pass. A layer is a dense decoder layer."""

    layer: float  # a token through one layer, in a sequence of text
    head: float  # a token through the head, and its logits reduced to a fitness
    one: tuple[float, float]  # a pass of one token, as in a step of decoding: through one layer, through the head
    few: tuple[float, float]  # the same for `together` tokens
    together: int
    flops: float  # operations a second of the matrix products of a layer

    def step(self, layers: int, tokens: float) -> float:
        """Seconds of a pass of up to `together` tokens through so many layers and the head."""
        share = (tokens - 1) / (self.together - 1) if self.together > 1 else 0.0
        layer, head = (one + share * (few - one) for one, few in zip(self.one, self.few, strict=True))
        return layers * layer + head


@torch.no_grad()
def measure_speed(model: Any, device: str, dtype: torch.dtype, length: int, together: int, seconds: float) -> Speed:
    """Time one layer and the head of a model that need not have weights.

    Where a pass of `length` tokens would take too long, fewer tokens are timed and the rest is proportion.

    Args:
        model: a causal LM of a supported family, which may be on the meta device.
        device: where to run.
        dtype: number type of the weights.
        length: tokens of a sequence.
        together: tokens that decoding passes together.
        seconds: what all timings may take, about.

    Raises:
        torch.OutOfMemoryError: one layer and the head do not fit.
    """
    parts = _Parts(model, device, dtype)
    parts.run_layer(1)  # the first pass of all loads kernels
    parts.run_head(1)
    one = parts.timed_in_turn(1, 1, seconds / 8)
    few = parts.timed_in_turn(together, together, seconds / 8)
    # A pass of n tokens takes at most n / few passes of a few: an upper bound that is far off where weights are read.
    allowed = SHARE * seconds
    tokens = _fitting(length, allowed * together / few[0])
    rows = _fitting(min(length, HEAD_TOKENS), allowed * together / few[1])
    if min(tokens, rows) <= together:  # slow already: timing it again would tell nothing new
        layer, head = few[0] / together, few[1] / together
        return Speed(layer, head, one, few, together, 2 * parts.layer_params / layer)
    layer, head = parts.timed_in_turn(tokens, rows, seconds / 2)
    while tokens < length and layer < allowed / 4:  # it was far off
        tokens = min(length, 2 * tokens)
        layer, head = parts.timed_in_turn(tokens, rows, seconds / 8)
    return Speed(layer / tokens, head / rows, one, few, together, 2 * parts.layer_params * tokens / layer)


def _fitting(wanted: int, allowed: float) -> int:
    """As many tokens as are wanted, or the power of two below what is allowed; at least one."""
    return wanted if allowed >= wanted else 1 << max(0, int(allowed).bit_length() - 1)


class _Parts:
    """One layer and the head of a model, made of random numbers."""

    def __init__(self, model: Any, device: str, dtype: torch.dtype) -> None:
        decoder, config = model.get_decoder(), model.config
        self.device = torch.device(device)
        noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(self.device, dtype)
        with torch.device("meta"):
            layer = type(decoder.layers[0])(config, 0).to(dtype).eval().requires_grad_(False)
        self.layer: nn.Module = layer.to_empty(device=self.device)
        for parameter in self.layer.parameters():
            _fill(parameter, noise, parameter.shape[-1] ** -0.5)
        self.rotary = type(decoder.rotary_emb)(config).to(self.device)
        self.weight = torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device=self.device)
        _fill(self.weight, noise, config.hidden_size**-0.5)
        self.noise = noise
        self.layer_params = sum(parameter.numel() for parameter in self.layer.parameters() if parameter.ndim == 2)

    def run_layer(self, tokens: int) -> None:
        """One pass of `tokens` random tokens through the layer."""
        hidden = self._hidden(tokens)[None]
        positions = self.rotary(hidden, torch.arange(tokens, device=self.device)[None])
        self.layer(hidden, attention_mask=None, position_embeddings=positions)

    def run_head(self, tokens: int) -> None:
        """One pass of `tokens` random tokens through the head and the reduction of their logits."""
        logits = nn.functional.linear(self._hidden(tokens), self.weight)
        k = min(TOP_K, logits.shape[1])
        indices = torch.arange(k, device=self.device).expand(tokens, k)
        reduced = split(logits, indices, indices[:, 0])
        bucketed_kl(reduced.buckets, reduced.buckets)

    def timed_in_turn(self, tokens: int, rows: int, seconds: float) -> tuple[float, float]:
        """Median seconds of the layer on `tokens` tokens and of the head on `rows`, run in turn for `seconds`."""
        layer: list[float] = []
        head: list[float] = []
        start = time.perf_counter()
        while not layer or (len(layer) < REPEATS and time.perf_counter() - start < seconds):
            head.append(self._seconds(lambda: self.run_head(rows)))
            layer.append(self._seconds(lambda: self.run_layer(tokens)))
        return statistics.median(layer), statistics.median(head)

    def _hidden(self, tokens: int) -> Tensor:
        """Random hidden states [tokens, hidden]."""
        hidden = torch.empty(tokens, self.weight.shape[1], dtype=self.weight.dtype, device=self.device)
        _fill(hidden, self.noise, 1.0)
        return hidden

    def _seconds(self, run: Callable[[], None]) -> float:
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _fill(tensor: Tensor, noise: Tensor, scale: float) -> None:
    """Fill `tensor` with `noise`, over and over: drawing gigabytes of random numbers would take longer than timing."""
    flat = tensor.view(-1)
    scaled = noise * scale
    for start in range(0, flat.numel(), NOISE):
        piece = flat[start : start + NOISE]
        piece.copy_(scaled[: piece.numel()])
