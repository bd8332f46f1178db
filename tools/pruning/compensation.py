"""Compensation: what an output projection (`o_proj`, `down_proj`) becomes when some of its input channels are removed.

- none: the columns that are left, as they are.
- bias: adds W[:, k:] times the mean of the removed channels (An et al., FLAP, arXiv 2312.11983).
- lstsq: the k columns left are refitted so that the output is closest to the dense one over the calibration text
  (least_squares.py). Damping pulls towards the original weights, not towards zero, so the error on the calibration text
  is never above that of no compensation, and at full width the refit is W.

A place is one part of one layer. Whoever asks for several things of one place in a row, refits of several widths or a
refit and its first order, pays for one factorisation, however little may be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError, ModelError
from self_pruner.memory.profile import Part, Profile
from self_pruner.tools.pruning.least_squares import Factor, factorise
from self_pruner.tools.pruning.memory_bound import Item, MemoryBound, Sized
from self_pruner.tools.pruning.moments import GRAM_BLOCK, LateFeatures

Compensation = Literal["none", "bias", "lstsq"]
COMPENSATIONS: tuple[Compensation, ...] = get_args(Compensation)
Place = tuple[int, Part]  # layer and part
ASK_THE_OTHER = "ask the elastic model that it was recalibrated from"


def removed_mean(weight: Tensor, sums: Tensor, tokens: int, k: int) -> Tensor:
    """The mean output [out] of the channels from `k` on, which a bias gives back; float32."""
    mean = (sums[k:] / tokens).to(weight.device)
    # Where a matrix begins in memory decides in which order its product with a vector is summed; copies begin alike.
    return weight[:, k:].float().contiguous() @ mean.float()


def slice_residuals(
    weight: Tensor, gram: Tensor, cuts: Sequence[int], sums: Tensor | None = None, tokens: int = 1
) -> Tensor:
    """||W[:, k:] X[:, k:]^T||^2 for every k in `cuts`: the squared error of plain slices; float64 [len(cuts)].

    With (W^T W) * H added up from the last channel on, a block at a time, one sum serves all cuts, and all there is
    beside H are blocks: of the symmetric product those on and above the diagonal.

    Args:
        weight: W [out, channels].
        gram: H = X^T X [channels, channels], symmetric.
        cuts: numbers of channels kept, below all of them.
        sums: column sums of X [channels], where a bias gives back the mean: H - s s^T / n has the error that is left.
        tokens: n, the rows of X.
    """
    device, size = weight.device, len(gram)
    energy = torch.zeros(size, dtype=torch.float64, device=device)  # of each channel, with those behind it twice
    parts = [slice(start, min(start + GRAM_BLOCK, size)) for start in range(0, size, GRAM_BLOCK)]
    for number, rows in enumerate(parts):
        outputs = weight[:, rows].double().T
        for columns in parts[number:]:
            block = gram[rows, columns].to(device, torch.float64, copy=True)
            if sums is not None:
                block -= torch.outer(sums[rows].double(), sums[columns].double()).div_(tokens).to(device)
            block *= outputs @ weight[:, columns].double()
            if columns == rows:
                energy[rows] += block.diagonal()
                block.triu_(1)
            energy[rows] += 2 * block.sum(1)
    left = energy.flip(0).cumsum(0).flip(0)
    return left[list(cuts)].clamp(min=0).cpu()


def slice_bytes(channels: int, out: int) -> int:
    """Bytes that `slice_residuals` has beside the weight [out, channels] and the Gram matrix: float64 blocks."""
    block = min(channels, GRAM_BLOCK)
    return 8 * block * (2 * out + 3 * block)


class Compensator:
    """Makes, and within a memory bound remembers, the output projections of every layer, part and width."""

    def __init__(self, kind: Compensation, memory: int, damping: float = 0.01) -> None:
        """Start with nothing remembered.

        Args:
            kind: What makes up for removed channels.
            memory: Bound in bytes of the tensors to remember. What belongs to one place is held beyond it while that
                place is asked for.
            damping: A share of the mean Gram diagonal.
        """
        self.kind = kind
        self.damping = damping
        self.warnings: list[str] = []
        self.factorisations = 0  # Gram matrices factored so far, the same ones again included
        self.refits = 0  # refits solved so far, likewise
        self.factored: set[Place] = set()
        self.memo = MemoryBound(memory)
        self._visited: Place | None = None
        self._held: dict[Hashable, Sized] = {}  # of the place that was asked for last

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """While a caller goes through the places once: what it uses is not dropped for what it uses later."""
        self.memo.start_pass()
        try:
            yield
        finally:
            self._leave()

    def give_up(self) -> bool:
        """Drop all that is remembered, and remember less from here on; whether that freed anything."""
        held = bool(self._held)
        self._leave()
        return self.memo.give_up() or held

    def projection(
        self, place: Place, weight: Tensor, bias: Tensor | None, k: int, features: Callable[[], LateFeatures]
    ) -> tuple[Tensor, Tensor | None]:
        """Weight [out, k] and bias [out] of one output projection that keeps its first `k` channels.

        Args:
            place: Layer and part, for the memo and for warnings.
            weight: The reordered dense weight [out, channels].
            bias: The dense bias [out], if there is one.
            k: Channels kept, below the dense width.
            features: Gives the moments in the reordered channel order, in memory of their own, which is overwritten;
                called only when they are needed.
        """
        if self.kind == "lstsq":
            return self._remembered(place, k, lambda: self._refit(place, weight, k, features)), bias
        if self.kind == "bias":
            return weight[:, :k], self._remembered(place, k, lambda: self._bias(weight, bias, k, features()))
        return weight[:, :k], bias

    def residuals(
        self, place: Place, weight: Tensor, cuts: Sequence[int], features: Callable[[], LateFeatures]
    ) -> Tensor:
        """Squared output error over all calibration tokens, for every number of kept channels in `cuts` (ascending)."""
        if self.kind == "lstsq":
            return self._factor(place, features).residuals(weight, cuts)
        moments = features()
        sums = moments.sums if self.kind == "bias" else None  # the mean is given back
        return slice_residuals(weight, moments.gram, cuts, sums, moments.tokens)

    def first_order(
        self, place: Place, weight: Tensor, gradient: Tensor, output: Tensor, features: Callable[[], LateFeatures]
    ) -> Tensor:
        """What each further channel changes, to first order, in a function of the outputs of one output projection.

        Args:
            place: Layer and part.
            weight: The reordered dense weight [out, channels].
            gradient: The function's gradient with respect to it [out, channels].
            output: The same with respect to the projection's bias [out].
            features: As for `projection`.

        Returns:
            [channels], float64; the sum of the first k is the function at k channels, up to a constant.
        """
        if self.kind == "lstsq":
            factor = self._factor(place, features)
            projected = self._hold(place, "projected", lambda: factor.projected(weight))
            return factor.first_order(projected, gradient)
        terms = (gradient.float() * weight.float()).sum(0).double()
        if self.kind == "bias":  # a channel that is removed gives back its mean
            moments = features()
            mean = (moments.sums.double() / moments.tokens).to(weight.device)
            terms -= (output.double() @ weight.double()) * mean
        return terms

    def _leave(self) -> None:
        self._visited = None
        self._held.clear()

    def _hold(self, place: Place, key: Hashable, make: Callable[[], Item]) -> Item:
        """What `make` makes, once while nothing is asked of another place."""
        if place != self._visited:
            self._leave()
            self._visited = place
        if key not in self._held:
            self._held[key] = make()
        return cast(Item, self._held[key])

    def _remembered(self, place: Place, k: int, make: Callable[[], Tensor]) -> Tensor:
        return self._hold(place, k, lambda: self.memo.get((place, k), make))

    def _factor(self, place: Place, features: Callable[[], LateFeatures]) -> Factor:
        # By far the largest, and all that a refit needs beside it is one solve: refits come first.
        return self._hold(
            place, "factor", lambda: self.memo.get(place, lambda: self._factorise(place, features), cheap=True)
        )

    def _refit(self, place: Place, weight: Tensor, k: int, features: Callable[[], LateFeatures]) -> Tensor:
        factor = self._factor(place, features)
        self.refits += 1
        return factor.refit(weight, k).to(weight.dtype)

    def _factorise(self, place: Place, features: Callable[[], LateFeatures]) -> Factor:
        self.factorisations += 1
        self.factored.add(place)
        factor = factorise(lambda: features().gram, self.damping)
        if factor.damping > self.damping:
            layer, part = place
            warning = (
                f"the Gram matrix of the {part} of layer {layer} is singular: "
                f"damped by {factor.damping:g} of its mean diagonal instead of {self.damping:g}"
            )
            if warning not in self.warnings:
                self.warnings.append(warning)
        return factor

    @staticmethod
    def _bias(weight: Tensor, bias: Tensor | None, k: int, features: LateFeatures) -> Tensor:
        removed = removed_mean(weight, features.sums, features.tokens, k)
        return (removed if bias is None else bias.float() + removed).to(weight.dtype)


@dataclass(frozen=True)
class Recalibration:
    """The output projections of one profile, refitted in order so that they make up for each other."""

    profile: Profile
    refits: Mapping[Place, Tensor]  # [out, channels kept] each, in the type of the weights; any device, or a file


class Recalibrated(Compensator):
    """The output projections of a recalibration, in the place of those that one calibration gives."""

    def __init__(self, recalibration: Recalibration) -> None:
        super().__init__("lstsq", 0)
        self.recalibration = recalibration

    def projection(
        self, place: Place, weight: Tensor, bias: Tensor | None, k: int, features: Callable[[], LateFeatures]
    ) -> tuple[Tensor, Tensor | None]:
        """The refit of `place` and its dense bias.

        Raises:
            ModelError: `k` is not the number of channels that the profile keeps there.
        """
        refit = self._hold(place, "refit", lambda: self.recalibration.refits[place].to(weight.device))
        if refit.shape[1] != k:
            raise ModelError(
                f"the {place[1]} of layer {place[0]} is recalibrated at {refit.shape[1]} channels, not at {k}"
            )
        return refit, bias

    def residuals(
        self, place: Place, weight: Tensor, cuts: Sequence[int], features: Callable[[], LateFeatures]
    ) -> Tensor:
        """There are none: the refits make up for errors of other layers. Raises MeasurementError."""
        raise MeasurementError(f"a recalibrated output projection has no residuals: {ASK_THE_OTHER}")

    def first_order(
        self, place: Place, weight: Tensor, gradient: Tensor, output: Tensor, features: Callable[[], LateFeatures]
    ) -> Tensor:
        """There is none: the refits are of one profile. Raises MeasurementError."""
        raise MeasurementError(f"a recalibrated output projection has one width: {ASK_THE_OTHER}")
