"""What a vLLM that is started beside a run gets: GPUs, and a share of their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Quantization = Literal["fp8", "bitsandbytes"]
PER_WEIGHT: dict[Quantization, float] = {"fp8": 1.05, "bitsandbytes": 0.6}  # bytes, scales included
BESIDE_ON_CPU = 1 << 30  # bytes of main memory that it takes beside these where there is no GPU
BESIDE = 3 << 30  # bytes of each GPU that vLLM takes beside weights and cache: its kernels and activations


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of one GPU: all of them, and those that nothing else will take."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one vLLM gets."""

    gpus: tuple[str, ...]  # "cuda:1", ...; as many as share a layer
    bytes: int  # of each
    fraction: float  # of the memory of each, as vLLM counts it
    quantization: Quantization | None = None


def weights_of(params: int, quantization: Quantization | None, itemsize: int) -> int:
    """Bytes of so many parameters, of `itemsize` each where they are not quantised."""
    return int(params * (PER_WEIGHT[quantization] if quantization else itemsize))


def cache_space(cache: int) -> int:
    """GiB that a vLLM on a CPU gets for keys and values: `cache` bytes of its longest request, and some to spare."""
    return 1 + (cache >> 30)


def taken_on_cpu(weights: int, cache: int) -> int:
    """Bytes of main memory that a vLLM on a CPU takes."""
    return weights + (cache_space(cache) << 30) + BESIDE_ON_CPU


def share_of(
    params: int,
    cache: int,
    groups: int,
    rooms: Mapping[str, Room],
    quantization: Quantization | None = None,
    itemsize: int = 2,
) -> Share | None:
    """The fewest GPUs with room for a model, those with the most room first; None where there are none.

    Args:
        params: parameters of the model.
        cache: bytes of keys and values for its longest request.
        groups: key/value heads; vLLM divides them among the GPUs that share a layer.
        rooms: the GPUs.
        quantization: of the weights as they are loaded.
        itemsize: bytes of a weight that is not quantised.
    """
    most = sorted(rooms, key=lambda gpu: -rooms[gpu].free)
    for count in (1, 2, 4, 8):
        if count > len(most) or groups % count:
            break
        each = (weights_of(params, quantization, itemsize) + cache) // count + BESIDE
        chosen = sorted(most[:count], key=list(rooms).index)
        if all(rooms[gpu].free >= each for gpu in chosen):
            fraction = max(each / rooms[gpu].total for gpu in chosen)
            return Share(tuple(chosen), each, round(fraction + 0.005, 2), quantization)
    return None
