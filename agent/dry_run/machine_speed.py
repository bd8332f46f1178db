"""How fast this machine is at a model, from two seconds on tensors of the model's own shapes, and on one file.

One decoder layer and the head stand for all of it. They are made in the run's number type on the run's device, so no
weights are needed, and no more memory than these two take; what numbers are in them makes no difference to the time.
The two are timed in turn, because that is how a model meets its weights: what was used a moment ago has left the cache
by the time it is used again. The fastest of several passes counts: whatever else the machine does makes one slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from self_pruner.tools.evaluation.fitness import TOP_K, bucketed_kl, split
from self_pruner.tools.evaluation.targets import HEAD_TOKENS

LEAST, MOST = 4, 15  # passes of one length
SECONDS = 0.5  # that they take, about, where the least of them do not take longer
SLOW = 0.5  # seconds of a pass; a longer one is not tried any more
PIECE = 1 << 26  # bytes that are read of a file, and copied to a GPU
CPU_PRODUCT, GPU_PRODUCT = 1024, 8192  # rows of square matrices


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of the parts of a pass. A layer is a dense decoder layer."""

    layer: float  # a token through one layer, in a sequence of text
    head: float  # a token through the head, and its logits reduced to a fitness
    step: float  # one step of decoding some replies together, through the whole model
    operation: float  # one operation of a float32 matrix product, of which refits are made
    read: float  # a byte from the disk
    again: float  # a byte of a file that was read before and is still in memory
    upload: float  # a byte from main memory to the device; 0 where it computes in that


@torch.no_grad()
def measure_speed(model: Any, device: str, dtype: torch.dtype, length: int, together: int, file: Path) -> Speed:
    """Time one layer and the head of a model that need not have weights.

    Where a pass of `length` tokens would take too long, fewer tokens are timed and the rest is proportion.

    Args:
        model: a causal LM of a supported family, which may be on the meta device.
        device: where to run.
        dtype: number type of the weights.
        length: tokens of a sequence.
        together: replies that decoding goes on with together.
        file: any file of some MB on the disk that the checkpoint is on.

    Raises:
        torch.OutOfMemoryError: one layer and the head do not fit.
    """
    parts = _Parts(model, device, dtype)
    parts.run_layer(1)  # the first pass of all loads kernels
    parts.run_head(1)
    tokens = min(together, length)
    layer, head = parts.timed(tokens)
    step = model.config.num_hidden_layers * layer + head
    while tokens < length and layer + head < SLOW:
        tokens = min(length, 4 * tokens)
        layer, head = parts.timed(tokens)
    product, upload = parts.product(), parts.upload()
    read, again = reading(file)
    return Speed(layer / tokens, head / min(tokens, HEAD_TOKENS), step, product, read, again, upload)


def reading(file: Path) -> tuple[float, float]:
    """Seconds a byte of a file from the disk, where the system lets go of what memory holds of it, and read again."""
    room, seconds = bytearray(1 << 22), []
    with open(file, "rb", buffering=0) as opened:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, PIECE, os.POSIX_FADV_DONTNEED)
        for _ in range(2):
            opened.seek(0)
            done, start = 0, time.perf_counter()
            while done < PIECE and (count := opened.readinto(room)):
                done += count
            seconds.append((time.perf_counter() - start) / max(done, 1))
    return max(seconds), min(seconds)


class _Parts:
    """One layer and the head of a model."""

    def __init__(self, model: Any, device: str, dtype: torch.dtype) -> None:
        decoder, config = model.get_decoder(), model.config
        self.device = torch.device(device)
        with torch.device("meta"):
            layer = type(decoder.layers[0])(config, 0).to(dtype).eval().requires_grad_(False)
        self.layer: nn.Module = layer.to_empty(device=self.device)
        for parameter in self.layer.parameters():
            parameter.fill_(parameter.shape[-1] ** -0.5)
        self.rotary = type(decoder.rotary_emb)(config).to(self.device)
        self.head = self._full(config.vocab_size, config.hidden_size, dtype)

    def _full(self, rows: int, hidden: int, dtype: torch.dtype) -> Tensor:
        return torch.full((rows, hidden), hidden**-0.5, dtype=dtype, device=self.device)

    def _hidden(self, tokens: int) -> Tensor:
        """Hidden states [tokens, hidden]."""
        return self._full(tokens, self.head.shape[1], self.head.dtype)

    def run_layer(self, tokens: int) -> None:
        """One pass of `tokens` tokens through the layer."""
        hidden = self._hidden(tokens)[None]
        positions = self.rotary(hidden, torch.arange(tokens, device=self.device)[None])
        self.layer(hidden, attention_mask=None, position_embeddings=positions)

    def run_head(self, tokens: int) -> None:
        """One pass of `tokens` tokens through the head and the reduction of their logits."""
        logits = nn.functional.linear(self._hidden(tokens), self.head)
        k = min(TOP_K, logits.shape[1])
        indices = torch.arange(k, device=self.device).expand(tokens, k)
        reduced = split(logits, indices, indices[:, 0])
        bucketed_kl(reduced.buckets, reduced.buckets)

    def product(self) -> float:
        """Seconds of one operation of a float32 matrix product."""
        n = CPU_PRODUCT if self.device.type == "cpu" else GPU_PRODUCT
        square = torch.full((n, n), n**-0.5, device=self.device)
        return min(self._seconds(lambda: square @ square) for _ in range(2)) / (2 * n**3)

    def upload(self) -> float:
        """Seconds of a byte from pinned memory to the device."""
        if self.device.type == "cpu":
            return 0.0
        pinned = torch.zeros(PIECE, dtype=torch.uint8, pin_memory=True)
        return min(self._seconds(lambda: pinned.to(self.device, non_blocking=True)) for _ in range(2)) / PIECE

    def timed(self, tokens: int) -> tuple[float, float]:
        """Seconds of `tokens` tokens through the layer, and of as many as exist at a time through the head."""
        layer: list[float] = []
        head: list[float] = []
        start = time.perf_counter()
        while len(layer) < LEAST or (len(layer) < MOST and time.perf_counter() - start < SECONDS):
            if layer and layer[0] > SLOW:
                break
            head.append(self._seconds(lambda: self.run_head(min(tokens, HEAD_TOKENS))))
            layer.append(self._seconds(lambda: self.run_layer(tokens)))
        return min(layer), min(head)

    def _seconds(self, run: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
