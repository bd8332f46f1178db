"""Refits: Gram matrix, factor and refit of one output projection, as the product makes them and as they could be.

Beside the Gram matrix stands the product's earlier way: float32 copies in a loop of 256 columns, summed in float64.

The product multiplies in bfloat16 with float32 sums (activations are bfloat16 already), factors in float32 where that
is accurate, and solves a triangular system for every refit. Beside it stand float64 and one factorisation by the
library. Errors are those of the refitted columns at 70% of the width, beside a float64 solution of the same damped
equations on the float64 Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.device import Device, reason
from benchmarks.gpu.profiles import Shapes
from benchmarks.gpu.record import Deadline, Record, figure, rounded
from self_pruner.tools.pruning.least_squares import factorise
from self_pruner.tools.pruning.moments import Moments

DAMPING = 0.01
KEPT = 0.7  # of the channels
PRODUCT = "product: exact products where inputs are bfloat16, float32 sums"
EARLIER = "earlier: float32 copies, float64 sums, 256 columns at a time"
FASTER, MOST = 8.0, 14e9  # times that a Gram matrix is to be as fast as earlier; bytes that a factor may take
BATCH = 8  # sequences that are multiplied together


@dataclass(frozen=True, slots=True)
class Problem:
    """One output projection and what it reads."""

    weight: Tensor  # [out, channels]
    inputs: Tensor  # [tokens, channels]

    @property
    def kept(self) -> int:
        """Channels of the refit."""
        return int(KEPT * self.weight.shape[1])


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """The MLP of the giant and that of its relative, the smaller one first."""
    tokens, length = (256, 64) if shapes.toy else (16384, 2048)
    for config in (shapes.relative, shapes.giant):
        if deadline.left() < (0 if shapes.toy else 10):
            record.row(channels=config.intermediate_size, skipped="no time")
            continue
        problem = make_problem(device, config.hidden_size, config.intermediate_size, tokens, shapes.toy)
        _measure(record, device, problem, length * BATCH)
        del problem
        device.release()
    widest = [row for row in record.content["rows"] if row["channels"] == shapes.giant.intermediate_size]
    seconds = {row["way"]: row["median_s"] for row in widest if "median_s" in row}
    faster = seconds[EARLIER] / seconds[PRODUCT] if {EARLIER, PRODUCT} <= seconds.keys() else None
    record.target("times that a Gram matrix is as fast as earlier", faster, least=FASTER)
    peaks = [row["peak_bytes"] for row in widest if row.get("factor_s") and row["way"].startswith("product")]
    record.target("peak bytes of a factor", peaks[0] if peaks else None, most=MOST)


def make_problem(device: Device, hidden: int, channels: int, tokens: int, toy: bool) -> Problem:
    """Random weights, and inputs whose channels have unequal scales and share directions, as activations do."""
    dtype = torch.float32 if toy else torch.bfloat16
    generator = device.generator(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device.torch, generator=generator)

    shared = min(512, channels // 2)
    scales = normal(channels).mul_(0.7).exp_()
    inputs = torch.empty(tokens, channels, dtype=dtype, device=device.torch)
    directions = normal(shared, channels).mul_(shared**-0.5)
    for rows in inputs.split(4096):
        rows.copy_((normal(len(rows), shared) @ directions + 0.5 * normal(len(rows), channels)) * scales)
    return Problem((normal(hidden, channels) * channels**-0.5).to(dtype), inputs)


def _measure(record: Record, device: Device, problem: Problem, batch: int) -> None:
    channels, tokens = problem.weight.shape[1], len(problem.inputs)
    exact_gram = _watched(
        record, device, channels, "gram", "float64 products: the reference", tokens, lambda: _float64_gram(problem)
    )
    if exact_gram is None:
        return
    grams: dict[str, Tensor] = {}
    for name, make in (
        (PRODUCT, lambda: product_gram(problem, batch)),
        ("float32 products and sums", lambda: float32_gram(problem)),
        ("bfloat16 products, float32 sums", lambda: bfloat16_gram(problem)),
    ):
        gram = _watched(record, device, channels, "gram", name, tokens, make, exact_gram)
        if gram is not None:
            grams[name] = gram
        del gram
    _watched(record, device, channels, "gram", EARLIER, tokens, lambda: earlier_gram(problem, batch), exact_gram)
    exact = float64_refit(problem, exact_gram)
    del exact_gram
    device.release()
    for gram_name, gram in grams.items():
        for name, way in (
            ("product: factor in place, triangular solve", product_refit),
            ("float64 factor, triangular solve", lambda one, own: solved_refit(one, own, torch.float64)),
            ("float32 factor, triangular solve", lambda one, own: solved_refit(one, own, torch.float32)),
        ):
            if gram_name.startswith("product") or name.startswith("float32"):
                _factored(record, device, problem, gram, f"{name}; Gram: {gram_name}", way, exact)


def _watched(
    record: Record,
    device: Device,
    channels: int,
    step: str,
    name: str,
    tokens: int,
    make: Callable[[], Tensor],
    exact: Tensor | None = None,
) -> Tensor | None:
    """Time one way to make a tensor, with its peak of memory and its error; None where it fails."""
    device.release()
    try:
        made = make()  # also the warm-up
        del made
        device.forget_peak()
        result: list[Tensor] = []
        seconds = device.seconds(lambda: result.append(make()))
        fields = {"seconds": figure([seconds]), "peak_bytes": device.peak_above_bytes()}
    except RuntimeError as error:
        record.row(channels=channels, step=step, way=name, error=reason(error))
        return None
    row = record.row(channels=channels, step=step, way=name, tokens=tokens, median_s=rounded(seconds), **fields)
    if exact is not None:
        row["relative_error"] = rounded(relative_error(result[0], exact), 3)
        record.save()
    return result[0]


def _factored(
    record: Record,
    device: Device,
    problem: Problem,
    gram: Tensor,
    name: str,
    way: Callable[[Problem, Tensor], tuple[Callable[[], Tensor], int]],
    exact: Tensor,
) -> None:
    """Time making a factor and one refit from it."""
    device.release()
    channels = problem.weight.shape[1]
    try:
        way(problem, gram)[0]()
        device.release()
        device.forget_peak()
        made: list[tuple[Callable[[], Tensor], int]] = []
        factor = device.seconds(lambda: made.append(way(problem, gram)))
        peak = device.peak_above_bytes()
        refit, held = made[0]
        times = device.repeat(refit, 3, warmup=0)
        error = relative_error(refit(), exact)
    except RuntimeError as failure:
        record.row(channels=channels, step="factor and refit", way=name, error=reason(failure))
        return
    record.row(
        channels=channels,
        step="factor and refit",
        way=name,
        factor_s=rounded(factor),
        refit_s=rounded(figure(times)["median"]),
        relative_error=rounded(error, 3),
        held_bytes=held,
        peak_bytes=peak,
        refit_seconds=figure(times),
    )


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm, by blocks of rows so that no copy is made of the whole."""
    difference = scale = 0.0
    for own, other in zip(found.split(2048), exact.split(2048), strict=True):
        difference += float((own.double() - other.double()).square().sum())
        scale += float(other.double().square().sum())
    return float((difference / scale) ** 0.5)


def product_gram(problem: Problem, batch: int) -> Tensor:
    """As calibration makes it, before it goes to the host."""
    return _gram_of(Moments(problem.inputs.shape[1], problem.inputs.device), problem, batch)


def _gram_of(moments: Moments | EarlierMoments, problem: Problem, batch: int) -> Tensor:
    hook = torch.nn.Identity()
    for rows in problem.inputs.split(batch):
        moments(hook, (rows,))
    return moments.gram()


class EarlierMoments:
    """X^T X as it was summed at first."""

    def __init__(self, channels: int, device: torch.device | str = "cpu") -> None:
        self.upper = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def __call__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add the rows of `inputs[0]` [..., channels]."""
        rows = inputs[0].flatten(0, -2).float()
        for start in range(0, rows.shape[1], 256):
            stop = min(start + 256, rows.shape[1])
            self.upper[:stop, start:stop] += rows[:, :stop].T @ rows[:, start:stop]

    def gram(self) -> Tensor:
        """The sum [channels, channels], float32."""
        upper = self.upper.triu().float()
        return upper + upper.triu(1).T


def earlier_gram(problem: Problem, batch: int) -> Tensor:
    """As calibration made it at first."""
    return _gram_of(EarlierMoments(problem.inputs.shape[1], problem.inputs.device), problem, batch)


def float32_gram(problem: Problem) -> Tensor:
    """One float32 product."""
    total = torch.zeros(problem.inputs.shape[1], problem.inputs.shape[1], device=problem.inputs.device)
    for rows in problem.inputs.split(4096):
        wide = rows.float()
        total.addmm_(wide.T, wide)
    return total


def bfloat16_gram(problem: Problem) -> Tensor:
    """Products of bfloat16 numbers whose sums are float32, where the device has them."""
    rows = problem.inputs.bfloat16()
    return torch.mm(rows.T, rows, out_dtype=torch.float32)


def _float64_gram(problem: Problem) -> Tensor:
    total = torch.zeros(
        problem.inputs.shape[1], problem.inputs.shape[1], dtype=torch.float64, device=problem.inputs.device
    )
    for rows in problem.inputs.split(1024):
        wide = rows.double()
        total.addmm_(wide.T, wide)
    return total


def product_refit(problem: Problem, gram: Tensor) -> tuple[Callable[[], Tensor], int]:
    """The product's own factor: what it refits with, and the bytes that it holds."""
    factor = factorise(gram.clone, DAMPING)
    return lambda: factor.refit(problem.weight, problem.kept), factor.nbytes


def solved_refit(problem: Problem, gram: Tensor, dtype: torch.dtype) -> tuple[Callable[[], Tensor], int]:
    """A factor of which a triangular system is solved for every refit: no inverse is made or kept."""
    matrix = gram.to(dtype, copy=True)
    matrix.diagonal().add_(DAMPING * float(matrix.diagonal().mean()))
    lower, failed = torch.linalg.cholesky_ex(matrix)
    del matrix
    if int(failed):
        raise RuntimeError("the damped Gram matrix is not positive definite in this precision")
    lower = lower.float()
    projected = problem.weight.float() @ lower
    k = problem.kept

    def refit() -> Tensor:
        return torch.linalg.solve_triangular(lower[:k, :k], projected[:, :k], upper=False, left=False)

    return refit, lower.nbytes + projected.nbytes


def float64_refit(problem: Problem, gram: Tensor) -> Tensor:
    """The columns [out, k] that solve the damped equations, in float64; `gram` is damped in place."""
    ridge = DAMPING * float(gram.diagonal().mean())
    gram.diagonal().add_(ridge)
    k = problem.kept
    # V (H_kk + d I) = W H[:, :k] + d W[:, :k], whose right side is W times the first k columns of H + d I
    right = problem.weight.double() @ gram[:, :k]
    lower = torch.linalg.cholesky(gram[:k, :k])
    return torch.cholesky_solve(right.T, lower).T.contiguous()
