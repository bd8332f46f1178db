"""Refits of one output projection from one factor of its Gram matrix, for every number of channels kept.

Some columns of W [out, channels] are removed and the first k are refitted: V [out, k] minimises
||(W - V) X^T||^2 + d ||V - W[:, :k]||^2, whose solution is V = W H[:, :k] H[:k, :k]^-1 with H = X^T X + d I. With
H = L L^T and r the removed channels this is

    V = W[:, :k] + W[:, r] L[r, :k] L[:k, :k]^-1

for the leading block of L is the factor of the leading block of H. So one factor serves every k, each for one product
and one triangular solve of the fewer of the removed rows and the outputs. No inverse is formed, and what is kept
unchanged is not computed anew.

Arithmetic is float32. The error of a refit, measured as the output error that it causes, goes with the root of the
condition of H, because the solve is by L; `factorise` measures it and takes float64 where it exceeds `TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError

MAX_DAMPING = 1e4  # of the mean diagonal; above this the refit is the plain slice anyway
TOLERANCE = 1e-3  # of the norm of an output: a quarter of what rounding to bfloat16 does to a weight
BLOCK = 256  # columns that are factored together
PANEL = 512  # columns of a triangular product that are computed together


@dataclass(frozen=True, slots=True)
class Factor:
    """The damped Gram matrix of one output projection, factored once for all widths."""

    lower: Tensor  # L [channels, channels], lower triangular, float32, column after column in memory
    damping: float  # share of the mean diagonal that it took
    ridge: float  # d itself

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.lower.nbytes

    def refit(self, weight: Tensor, k: int, carried: Tensor | None = None) -> Tensor:
        """The refitted columns V [out, k] of `weight` [out, channels], float32.

        With `carried`, E^T X [out, channels], the outputs are to give E beside X W^T, and
        V = W[:, :k] + (W[:, r] L[r, :k] + E^T X[:, :k] L[:k, :k]^-T) L[:k, :k]^-1.
        """
        leading = self.lower[:k, :k]
        removed = weight[:, k:].float()
        if carried is not None:
            wanted = _divided(carried[:, :k].clone(memory_format=torch.contiguous_format), leading, transposed=True)
            return _divided(wanted.addmm_(removed, self.lower[k:, :k]), leading).add_(weight[:, :k])
        return self._given_back(removed, k).add_(weight[:, :k])

    def projected(self, weight: Tensor) -> Tensor:
        """W L [out, channels], float32; the zeros above the diagonal are left out, panel by panel."""
        wide, size = weight.float(), len(self.lower)
        found = torch.empty_like(wide)
        for start in range(0, size, PANEL):
            found[:, start : start + PANEL] = wide[:, start:] @ self.lower[start:, start : start + PANEL]
        return found

    def residuals(self, weight: Tensor, cuts: Sequence[int]) -> Tensor:
        """||(W - V_k) X^T||^2 of the refit for every k in `cuts` (ascending); float64 [len(cuts)].

        In the damped metric the error is the energy of the columns of W L from k on; the two terms that damping adds,
        d ||V_k - W[:, :k]||^2 and d ||W[:, k:]||^2, are taken off again. V_k is the refit of the next wider one, whose
        removed columns are few, so the whole curve costs about as much as the factor.
        """
        dense = weight.float()
        refitted, width = dense.clone(), dense.shape[1]
        outside, dropped = _energy_from(self.projected(weight)), _energy_from(dense)
        found = []
        for k in reversed(cuts):
            if 0 < k < width:
                refitted[:, :k] += self._given_back(refitted[:, k:width], k)
            width = k
            damping = (refitted[:, :k] - dense[:, :k]).square().sum().double() + dropped[k]
            found.append(outside[k] - self.ridge * damping)
        return torch.stack(found[::-1]).clamp(min=0).cpu()

    def first_order(self, projected: Tensor, gradient: Tensor) -> Tensor:
        """What each further channel changes, to first order, in a function of the outputs; float64 [channels].

        With its gradient M the function is <M, V_k> + const at k channels. The refits of all widths are leading blocks
        of one product, V_k = (W L)[:, :k] L^-1[:k, :k], and L^-1 is lower triangular, so <M, V_k> sums the first k
        columns of (W L) * (M L^-T): one solve serves all widths.

        Args:
            projected: W L [out, channels], of `projected`.
            gradient: M [out, channels].
        """
        wide = gradient.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        along = _divided(wide, self.lower, transposed=True)
        return along.mul_(projected).sum(0).double()

    def _given_back(self, removed: Tensor, k: int) -> Tensor:
        """What the first k columns gain for `removed` [out, n], the columns from k to k + n; float32 [out, k]."""
        leading, below = self.lower[:k, :k], self.lower[k : k + removed.shape[1], :k]
        if removed.shape[1] < removed.shape[0]:
            return removed @ _divided(below.clone(memory_format=torch.contiguous_format), leading)
        return _divided(removed @ below, leading)


def factorise(gram: Callable[[], Tensor], damping: float = 0.01) -> Factor:
    """Factors a damped Gram matrix [channels, channels] in place.

    Damping is a share of the mean diagonal, 1% by default; while the matrix is not positive definite it grows
    tenfold, and `Factor.damping` says where it ended.

    Args:
        gram: Gives the matrix, float32, on the device to compute on. It is overwritten; `gram` is called again in the
            rare case that it is needed again.
        damping: The least share to try.

    Raises:
        MeasurementError: no damping helps.
    """
    used, size = damping, 0
    while used <= MAX_DAMPING:
        for dtype in (torch.float32, torch.float64):
            matrix: Tensor | None = None  # what failed makes room first
            lower: Tensor | None = None
            matrix = gram().to(dtype)
            size, mean = len(matrix), float(matrix.diagonal().double().mean())
            ridge = used * (mean if mean > 0 else 1.0)  # all-zero inputs: any damping gives back the weights
            matrix.diagonal().add_(ridge)
            probe = _probe(matrix)
            image = matrix @ probe
            lower = _cholesky(matrix.T)  # symmetric: column after column from here on
            if lower is not None and (dtype == torch.float64 or _error(lower, probe, image) <= TOLERANCE):
                return Factor(lower.float(), used, ridge)
        used = max(10 * used, 1e-6)
    raise MeasurementError(
        f"a Gram matrix of {size} channels is not positive definite even damped by {MAX_DAMPING:g} times "
        "its mean diagonal; calibrate again on other text"
    )


def _cholesky(matrix: Tensor) -> Tensor | None:
    """The lower factor of a symmetric `matrix`, in its memory; None where it is not positive definite.

    Right-looking, block by block, so that nearly all of it is matrix products.
    """
    size = len(matrix)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        diagonal, failed = torch.linalg.cholesky_ex(matrix[start:stop, start:stop])
        if failed or not torch.isfinite(diagonal).all():
            return None
        matrix[start:stop, start:stop] = diagonal
        below = matrix[stop:, start:stop]
        below.copy_(_over(below, diagonal, transposed=True))
        for column in range(stop, size, PANEL):
            panel = slice(column, min(column + PANEL, size))
            matrix[column:, panel].addmm_(matrix[column:, start:stop], matrix[panel, start:stop].T, alpha=-1)
    matrix.T.triu_()  # the same zeros, in the order of its memory
    return matrix


def _over(rows: Tensor, lower: Tensor, *, transposed: bool = False) -> Tensor:
    """`rows` [n, k] L^-1, or `rows` L^-T."""
    factor = lower.T if transposed else lower
    return torch.linalg.solve_triangular(factor, rows, upper=transposed, left=False)


def _divided(rows: Tensor, lower: Tensor, *, transposed: bool = False) -> Tensor:
    """`rows` [n, k] L^-1, or `rows` L^-T, in the memory of `rows`.

    PyTorch's own solve copies a triangle that is part of a larger matrix, which may be as large as all else in memory.
    """
    size = len(lower)
    starts = range(0, size, PANEL)
    for start in starts if transposed else reversed(starts):
        stop = min(start + PANEL, size)
        found = rows[:, start:stop]
        found.copy_(_over(found, lower[start:stop, start:stop], transposed=transposed))
        if transposed:
            rows[:, stop:].addmm_(found, lower[stop:, start:stop].T, alpha=-1)
        else:
            rows[:, :start].addmm_(found, lower[start:stop, :start], alpha=-1)
    return rows


def _probe(matrix: Tensor) -> Tensor:
    """A fixed vector [channels, 1] of signs without a pattern."""
    signs = torch.randint(2, (len(matrix), 1), generator=torch.Generator().manual_seed(0))
    return (2 * signs - 1).to(matrix)


def _error(lower: Tensor, probe: Tensor, image: Tensor) -> float:
    """How far H^-1 `image` by the factor is from `probe`, where `image` is H `probe`: ||e X^T|| over ||probe X^T||."""
    half = torch.linalg.solve_triangular(lower, image, upper=False)
    found = torch.linalg.solve_triangular(lower.T, half, upper=True)
    wrong = (lower.T @ (found - probe)).norm() / half.norm()
    return float(wrong) if torch.isfinite(wrong) else float("inf")


def _energy_from(matrix: Tensor) -> Tensor:
    """Sum of squares of the columns from k on, for every k from 0 to their number; float64."""
    energy = matrix.square().sum(0).double()
    return torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])
