"""Compensation: what an output projection (`o_proj`, `down_proj`) becomes when some of its input channels are removed.

- none: the columns that are left, as they are.
- bias: adds W[:, k:] times the mean of the removed channels (An et al., FLAP, arXiv 2312.11983).
- lstsq: the k columns left are refitted so that the output is closest to the dense one over the calibration text.

The refit minimises ||(W - V) X^T||^2 + d ||V - W[:, :k]||^2 over V [out, k]. With the damped Gram matrix
H + d I = L L^T and P = W L the solution is V = P[:, :k] L[:k, :k]^-1, and the leading block of L^-1 is the inverse of
that of L: one Cholesky factor of the reordered Gram serves every k, each for one matrix product. Damping pulls towards
the original weights, not towards zero, so the error on the calibration text is never above that of no compensation,
and at full width V = W.

A recalibrated output projection (recalibration.py) is to give E beside X W^T, which is linear: with E^T X known, it
minimises ||X W^T + E - X[:, :k] V^T||^2 + d ||V - W[:, :k]||^2 by the same formula with P = W L + E^T X L^-T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import Part
from self_pruner.tools.pruning.calibration import Features
from self_pruner.tools.pruning.memory_bound import MemoryBound

Compensation = Literal["none", "bias", "lstsq"]
COMPENSATIONS: tuple[Compensation, ...] = get_args(Compensation)

MAX_DAMPING = 1e4  # of the mean diagonal; above this the refit is the plain slice anyway


@dataclass(frozen=True, slots=True)
class Factor:
    """The damped Gram matrix of one output projection, factored once for all widths."""

    inverse: Tensor  # L^-1, [channels, channels] lower triangular, float32
    projected: Tensor  # P, [out, channels], float32
    damping: float  # share of the mean diagonal that it took
    ridge: float  # d itself
    recalibrated: bool = False  # whether P has carried errors

    @property
    def nbytes(self) -> int:
        """Bytes of the two matrices."""
        return self.inverse.nbytes + self.projected.nbytes

    def refit(self, k: int) -> Tensor:
        """The refitted columns V [out, k], float32."""
        return self.projected[:, :k] @ self.inverse[:k, :k]


def factorise(weight: Tensor, gram: Tensor, damping: float = 0.01, carried: Tensor | None = None) -> Factor:
    """Factors the damped `gram` [channels, channels] of `weight` [out, channels], in float64.

    Damping is a share of the mean diagonal, 1% by default; while the matrix is not positive definite it grows
    tenfold, and `Factor.damping` says where it ended. With `carried`, E^T X [out, channels], the outputs are to give E
    beside their own. Raises MeasurementError if no damping helps.
    """
    matrix = gram.to(weight.device, torch.float64, copy=True)
    mean = float(matrix.diagonal().mean())
    scale = mean if mean > 0 else 1.0  # all-zero inputs: any damping gives back the original weights
    used, ridge = damping, 0.0
    while used <= MAX_DAMPING:
        matrix.diagonal().add_(used * scale - ridge)  # in place: a Gram can be gigabytes
        ridge = used * scale
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if not failed and torch.isfinite(lower).all():
            lower = lower.float()  # its condition is the root of the Gram's, so float32 is enough from here on
            inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower), device=lower.device), upper=False)
            projected = weight.float() @ lower
            if carried is not None:
                projected += carried.to(weight.device, torch.float32) @ inverse.T
            return Factor(inverse, projected, used, ridge, carried is not None)
        used = max(10 * used, 1e-6)
    raise MeasurementError(
        f"a Gram matrix of {len(matrix)} channels is not positive definite even damped by {MAX_DAMPING:g} times "
        "its mean diagonal; calibrate again on other text"
    )


def refit(weight: Tensor, gram: Tensor, k: int, damping: float = 0.01) -> Tensor:
    """The first `k` columns [out, k] of `weight` [out, channels], refitted; float32. See the module's formula."""
    return factorise(weight, gram, damping).refit(k)


def removed_mean(weight: Tensor, sums: Tensor, tokens: int, k: int) -> Tensor:
    """The mean output [out] of the channels from `k` on, which a bias gives back; float32."""
    mean = (sums[k:] / tokens).to(weight.device)
    return weight[:, k:].float() @ mean.float()


def slice_residuals(weight: Tensor, gram: Tensor, cuts: Sequence[int]) -> Tensor:
    """||W[:, k:] X[:, k:]^T||^2 for every k in `cuts`: the squared error of plain slices; float64 [len(cuts)].

    With a centred Gram (H - s s^T / n) it is the error that is left after the bias.
    """
    wide = weight.to(torch.float64)
    energy = (wide.T @ wide) * gram.to(weight.device, torch.float64)
    return torch.stack([energy[k:, k:].sum() for k in cuts]).clamp(min=0).cpu()


def refit_residuals(weight: Tensor, factor: Factor, cuts: Sequence[int]) -> Tensor:
    """||(W - V_k) X^T||^2 of the refit for every k in `cuts` (ascending); float64 [len(cuts)].

    In the damped metric the error is the energy of the columns of P from k on; the two terms that damping adds,
    d ||V_k - W[:, :k]||^2 and d ||W[:, k:]||^2, are taken off again. V_k - W[:, :k] follows from the next wider cut,
    by one thin product, so the whole curve costs less than one refit at full width.

    Raises:
        MeasurementError: the factor has carried errors, and what they leave does not follow from P.
    """
    if factor.recalibrated:
        raise MeasurementError(
            "a recalibrated output projection has no residuals, for it makes up for errors of other layers: "
            "ask the elastic model that it was recalibrated from"
        )
    dense, projected = weight.float(), factor.projected
    change, width = torch.zeros_like(dense), dense.shape[1]
    outside, dropped = _energy_from(projected), _energy_from(dense)
    residuals = []
    for k in reversed(cuts):
        change[:, :k].addmm_(projected[:, k:width], factor.inverse[k:width, :k], alpha=-1)
        width = k
        damping = change[:, :k].square().sum().double() + dropped[k]
        residuals.append(outside[k] - factor.ridge * damping)
    return torch.stack(residuals[::-1]).clamp(min=0).cpu()


def _energy_from(matrix: Tensor) -> Tensor:
    """Sum of squares of the columns from k on, for every k from 0 to their number; float64."""
    energy = matrix.square().sum(0).double()
    return torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])


class Compensator:
    """Makes, and within a memory bound remembers, the output projections of every layer, part and width."""

    def __init__(
        self, kind: Compensation, memory: int, damping: float = 0.01, *, remember_factors: bool = True
    ) -> None:
        """Start with nothing remembered.

        Args:
            kind: What makes up for removed channels.
            memory: Bound in bytes of the tensors to remember.
            damping: A share of the mean Gram diagonal.
            remember_factors: Whether to remember factors too, by far the larger ones, for other widths.
        """
        self.kind = kind
        self.damping = damping
        self.remember_factors = remember_factors
        self.warnings: list[str] = []
        self.factorisations = 0  # Gram matrices factored so far, the same ones again included
        self.memo = MemoryBound(memory)

    def for_one_profile(self) -> Compensator:
        """Another one of the same kind, bound and damping, for use at one width a place."""
        return Compensator(self.kind, self.memo.limit, self.damping, remember_factors=False)

    def projection(
        self, place: tuple[int, Part], weight: Tensor, bias: Tensor | None, k: int, features: Callable[[], Features]
    ) -> tuple[Tensor, Tensor | None]:
        """Weight [out, k] and bias [out] of one output projection that keeps its first `k` channels.

        Args:
            place: Layer and part, for the memo and for warnings.
            weight: The reordered dense weight [out, channels].
            bias: The dense bias [out], if there is one.
            k: Channels kept; below the dense width, or all of them where `features` has carried errors.
            features: Gives the moments in the reordered channel order; called only when they are needed.
        """
        if self.kind == "lstsq":
            refitted = self.memo.get(
                (place, k), lambda: self._factor(place, weight, features).refit(k).to(weight.dtype)
            )
            return refitted, bias
        if self.kind == "bias":
            return weight[:, :k], self.memo.get((place, k), lambda: self._bias(weight, bias, k, features()))
        return weight[:, :k], bias

    def residuals(
        self, place: tuple[int, Part], weight: Tensor, cuts: Sequence[int], features: Callable[[], Features]
    ) -> Tensor:
        """Squared output error over all calibration tokens, for every number of kept channels in `cuts` (ascending).

        Raises:
            MeasurementError: the features have carried errors.
        """
        if self.kind == "lstsq":
            return refit_residuals(weight, self._factor(place, weight, features), cuts)
        moments = features()
        gram = moments.gram.double()
        if self.kind == "bias":  # the mean is given back, so only what varies about it is lost
            sums = moments.sums.double()
            gram = gram - sums[:, None] * sums[None, :] / moments.tokens
        return slice_residuals(weight, gram, cuts)

    def first_order(
        self, place: tuple[int, Part], weight: Tensor, slope: Tensor, output: Tensor, features: Callable[[], Features]
    ) -> Tensor:
        """What each further channel changes, to first order, in a function of the outputs of one output projection.

        With `slope` M the function is <M, V_k> + const at k channels. The refits of all widths are leading blocks:
        V_k = P[:, :k] L^-1[:k, :k] with L^-1 lower triangular, so <M, V_k> sums the first k rows of
        (P^T M) * L^-1, and one product serves all widths.

        Args:
            place: Layer and part.
            weight: The reordered dense weight [out, channels].
            slope: The function's gradient with respect to it [out, channels].
            output: The same with respect to the projection's bias [out].
            features: Gives the moments in the reordered channel order.

        Returns:
            [channels], float64; the sum of the first k is the function at k channels, up to a constant.

        Raises:
            MeasurementError: the features have carried errors.
        """
        if self.kind == "lstsq":
            factor = self._factor(place, weight, features)
            if factor.recalibrated:
                raise MeasurementError("slopes of a recalibrated output projection are of one profile only")
            return ((slope.float() @ factor.inverse.T) * factor.projected).sum(0).double()
        terms = (slope.float() * weight.float()).sum(0).double()
        if self.kind == "bias":  # a channel that is removed gives back its mean
            moments = features()
            mean = (moments.sums.double() / moments.tokens).to(weight.device)
            terms -= (output.double() @ weight.double()) * mean
        return terms

    def _factor(self, place: tuple[int, Part], weight: Tensor, features: Callable[[], Features]) -> Factor:
        if not self.remember_factors:
            return self._factorise(place, weight, features())
        return self.memo.get(place, lambda: self._factorise(place, weight, features()))

    def _factorise(self, place: tuple[int, Part], weight: Tensor, features: Features) -> Factor:
        self.factorisations += 1
        factor = factorise(weight, features.gram, self.damping, features.carried)
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
    def _bias(weight: Tensor, bias: Tensor | None, k: int, features: Features) -> Tensor:
        removed = removed_mean(weight, features.sums, features.tokens, k)
        return (removed if bias is None else bias.float() + removed).to(weight.dtype)


class KeptRefits(Compensator):
    """Output projections that were made before, one width a place: those of a recalibrated profile."""

    def __init__(self, weights: Mapping[tuple[int, Part], Tensor], memory: int) -> None:
        """Start from `weights` [out, k] by layer and part; `memory` bounds what is remembered on another device."""
        super().__init__("lstsq", memory)
        self.weights = weights

    def projection(
        self, place: tuple[int, Part], weight: Tensor, bias: Tensor | None, k: int, features: Callable[[], Features]
    ) -> tuple[Tensor, Tensor | None]:
        """Weight [out, k] and bias [out] as they were made.

        Raises:
            MeasurementError: they were made at another width than `k`.
        """
        kept = self.weights[place]
        if kept.shape[1] != k:
            raise MeasurementError(f"a recalibrated model has {kept.shape[1]} {place[1]} channels at {place}, not {k}")
        return self.memo.get((place, k), lambda: kept.to(weight.device, weight.dtype)), bias

    def _factor(self, place: tuple[int, Part], weight: Tensor, features: Callable[[], Features]) -> Factor:
        raise MeasurementError("a recalibrated output projection is of one profile only: it has no residuals or slopes")
