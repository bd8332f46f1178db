"""Second moments of what a projection reads, summed while text passes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

GRAM_ROWS = 4096  # tokens that are waited for, so that a sum is read and written once for so many
GRAM_BLOCK = 512  # rows of a Gram matrix computed together: wide enough for the speed of a matrix product


@dataclass(frozen=True, slots=True)
class ChannelMoments:
    """Moments of each input channel of one output projection by itself, over all calibration tokens."""

    squares: Tensor  # column sums of X * X, the diagonal of X^T X, [channels], float32 on the CPU
    sums: Tensor  # column sums of X, [channels], float32 on the CPU
    tokens: int  # rows of X


@dataclass(frozen=True, slots=True)
class Features:
    """Moments of the inputs of one output projection over all calibration tokens."""

    gram: Tensor  # X^T X, [channels, channels], float32 on the CPU
    sums: Tensor  # column sums of X, [channels], float32 on the CPU
    tokens: int  # rows of X

    def by_channel(self) -> ChannelMoments:
        """What they say of each channel by itself."""
        return ChannelMoments(self.gram.diagonal(), self.sums, self.tokens)

    def permuted(self, order: Tensor) -> LateFeatures:
        """The moments of the same channels in another order, on the device of `order`, a permutation [channels].

        The tensors are new ones.
        """
        return LateFeatures(partial(self._permuted_gram, order), self.sums.to(order.device)[order], self.tokens)

    def _permuted_gram(self, order: Tensor) -> Tensor:
        gram = self.gram.to(order.device)
        permuted = torch.empty_like(gram)
        for start in range(0, len(gram), GRAM_BLOCK):  # as a whole there would be a third matrix for a while
            rows = order[start : start + GRAM_BLOCK]
            permuted[start : start + GRAM_BLOCK] = gram.index_select(0, rows).index_select(1, order)
        return permuted


@dataclass(frozen=True, slots=True)
class LateFeatures:
    """Moments whose Gram matrix is made each time it is asked for, in memory of its own."""

    make_gram: Callable[[], Tensor]  # gives X^T X, [channels, channels], float32 on the device of `sums`
    sums: Tensor  # column sums of X, [channels], float32
    tokens: int  # rows of X

    @property
    def gram(self) -> Tensor:
        """X^T X [channels, channels], float32."""
        return self.make_gram()


class Moments:
    """A forward pre-hook that adds the inputs of a projection to its moments.

    A Gram matrix is symmetric, so only its blocks on and below the diagonal are computed. Products are summed in
    float32: exact ones of bfloat16 inputs, and rounded ones of float32 inputs. The sum over some hundred batches in
    float32 costs less accuracy than the products within one do.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        self.lower = torch.zeros(channels, channels, device=device)  # above the diagonal some blocks too
        self.sums = torch.zeros(channels, dtype=torch.float64, device=device)
        self.tokens = 0
        self._waiting: list[Tensor] = []  # rows that are not in `lower` yet

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add the rows of `inputs[0]` [..., channels]."""
        rows = inputs[0].flatten(0, -2)
        self._waiting.append(rows)
        self.sums += rows.float().sum(0)
        self.tokens += len(rows)
        if sum(map(len, self._waiting)) >= GRAM_ROWS:
            self._multiply()

    def _multiply(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting.clear()
        native = rows.dtype == torch.bfloat16 and rows.is_cuda
        wide = rows if native else rows.float()
        with exact_bfloat16_products(rows.dtype):
            for start in range(0, rows.shape[1], GRAM_BLOCK):
                stop = min(start + GRAM_BLOCK, rows.shape[1])
                lower = self.lower[start:stop, :stop]
                if native:
                    lower += torch.mm(rows[:, start:stop].T, rows[:, :stop], out_dtype=torch.float32)
                else:
                    lower.addmm_(wide[:, start:stop].T, wide[:, :stop])

    def gram(self) -> Tensor:
        """X^T X of all rows so far [channels, channels], float32, in the memory of these moments."""
        self._multiply()
        gram = self.lower
        for start in range(0, len(gram), GRAM_BLOCK):
            stop = start + GRAM_BLOCK
            own = gram[start:stop, start:stop].tril_()
            own += own.tril(-1).T
            gram[start:stop, stop:] = gram[stop:, start:stop].T
        return gram

    def features(self) -> Features:
        """The moments of all rows so far, on the CPU; a Gram matrix that is there already is not copied."""
        return Features(self.gram().cpu(), self.sums.float().cpu(), self.tokens)


@contextmanager
def exact_bfloat16_products(dtype: torch.dtype) -> Iterator[None]:
    """Let a CPU multiply float32 matrices that hold rows of `dtype` in bfloat16, where that changes nothing.

    PyTorch has no product of bfloat16 matrices with a float32 sum on a CPU. oneDNN has, for float32 matrices that it
    may round to bfloat16: products of values that are bfloat16 already are exact. Processors with bfloat16 matrix
    instructions make them several times as fast.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    if dtype == torch.bfloat16:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


class Squares:
    """A forward pre-hook that adds the squares of a projection's inputs: float32 in a batch, float64 over batches."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.sums = torch.zeros(channels, dtype=torch.float64, device=device)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add the rows of `inputs[0]` [..., channels]."""
        self.sums += inputs[0].flatten(0, -2).float().square().sum(0)
