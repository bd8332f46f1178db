"""Compensation: the refit solves its least-squares problem for every width, the bias keeps the mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.pruning.calibration import Features
from self_pruner.tools.pruning.compensation import (
    Compensator,
    MemoryBound,
    factorise,
    refit,
    refit_residuals,
    removed_mean,
    slice_residuals,
)

OUT, CHANNELS, ROWS = 6, 12, 40


def problem(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight [out, channels] and correlated inputs [rows, channels] with a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS, CHANNELS, generator=generator)
    inputs = torch.randn(rows, CHANNELS, generator=generator) @ mixing + 1
    return torch.randn(OUT, CHANNELS, generator=generator), inputs


def error(weight: Tensor, kept: Tensor, inputs: Tensor) -> float:
    """||(W - V) X^T||^2, with the activations themselves and not their Gram."""
    wide = inputs.double()
    difference = wide @ weight.double().T - wide[:, : kept.shape[1]] @ kept.double().T
    return float(difference.square().sum())


def literal_refit(weight: Tensor, inputs: Tensor, k: int, damping: float, error: Tensor | float = 0.0) -> Tensor:
    """The damped least squares as one tall plain problem: the inputs, and below them rows that say V = W[:, :k].

    The outputs are to be the dense ones and `error` [rows, out].
    """
    wide, dense = inputs.double(), weight.double()
    ridge = damping * wide.square().sum(0).mean()
    below = ridge.sqrt() * torch.eye(k, dtype=torch.float64)
    system = torch.cat([wide[:, :k], below])
    target = torch.cat([wide @ dense.T + error, below @ dense[:, :k].T])
    return torch.linalg.lstsq(system, target).solution.T


@pytest.mark.parametrize("k", [1, 5, 11, 12])
@pytest.mark.parametrize("damping", [1e-4, 0.01, 1.0])
def test_the_refit_solves_the_damped_least_squares_problem(k, damping):
    weight, inputs = problem()
    ours = refit(weight, inputs.T @ inputs, k, damping)
    torch.testing.assert_close(ours.double(), literal_refit(weight, inputs, k, damping), rtol=1e-3, atol=1e-4)


def test_one_factor_serves_every_width():
    weight, inputs = problem()
    gram = (inputs.T @ inputs).double()
    factor = factorise(weight, gram)
    damped = gram + factor.ridge * torch.eye(CHANNELS)
    for k in range(1, CHANNELS + 1):
        alone = weight.double() @ damped[:, :k] @ torch.linalg.inv(damped[:k, :k])
        torch.testing.assert_close(factor.refit(k).double(), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damping", [1e-4, 0.01, 1.0])
def test_a_factor_with_carried_errors_solves_for_the_output_and_the_error_at_every_width(damping):
    weight, inputs = problem()
    error = torch.randn(ROWS, OUT, generator=torch.Generator().manual_seed(1)) + inputs[:, :OUT]
    factor = factorise(weight, inputs.T @ inputs, damping, error.T @ inputs)
    for k in range(1, CHANNELS + 1):
        expected = literal_refit(weight, inputs, k, damping, error)
        torch.testing.assert_close(factor.refit(k).double(), expected, rtol=1e-3, atol=1e-4)


def test_what_is_left_of_carried_errors_is_not_told():
    weight, inputs = problem()
    factor = factorise(weight, inputs.T @ inputs, carried=torch.ones(OUT, CHANNELS))
    with pytest.raises(MeasurementError, match="has no residuals"):
        refit_residuals(weight, factor, [3])
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS, torch.ones(OUT, CHANNELS))
    with pytest.raises(MeasurementError, match="has no residuals"):
        compensator().residuals((0, "mlp"), weight, [3], lambda: features)


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_refit_lowers_the_error_of_plain_slices_at_any_damping(damping, seed):
    weight, inputs = problem(seed=seed)
    for k in range(1, CHANNELS):
        refitted = refit(weight, inputs.T @ inputs, k, damping)
        assert error(weight, refitted, inputs) < error(weight, weight[:, :k], inputs)


def test_at_full_width_the_refit_is_the_weight():
    weight, inputs = problem()
    torch.testing.assert_close(refit(weight, inputs.T @ inputs, CHANNELS, 1.0), weight, rtol=1e-4, atol=1e-5)


def test_inputs_that_are_all_zero_leave_the_slice():
    weight, _ = problem()
    torch.testing.assert_close(refit(weight, torch.zeros(CHANNELS, CHANNELS), 5), weight[:, :5])


def test_the_bias_gives_back_the_mean_output():
    weight, inputs = problem()
    bias = removed_mean(weight, inputs.sum(0), ROWS, 5)
    pruned = inputs[:, :5] @ weight[:, :5].T + bias
    torch.testing.assert_close(pruned.mean(0), (inputs @ weight.T).mean(0), rtol=1e-4, atol=1e-4)


def test_residuals_of_slices_are_the_errors_of_the_outputs():
    weight, inputs = problem()
    cuts = range(CHANNELS)
    expected = [error(weight, weight[:, :k], inputs) for k in cuts]
    assert slice_residuals(weight, inputs.T @ inputs, cuts).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("damping", [1e-3, 0.01, 1.0])
@pytest.mark.parametrize("cuts", [range(CHANNELS), (0, 4, 8), (3, 12)])
def test_residuals_of_refits_are_the_errors_of_the_outputs(damping, cuts):
    weight, inputs = problem()
    factor = factorise(weight, inputs.T @ inputs, damping)
    expected = [error(weight, factor.refit(k), inputs) for k in cuts]
    scale = error(weight, weight[:, :0], inputs)
    assert refit_residuals(weight, factor, list(cuts)).tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6 * scale)


# A product of one row with itself is singular in every leading block from 2 on, exactly so for small integers.
SINGULAR = torch.ones(CHANNELS, CHANNELS)


def test_a_singular_gram_is_damped_more():
    weight, _ = problem()
    factor = factorise(weight, SINGULAR, damping=0.0)
    assert factor.damping > 0
    assert torch.isfinite(factor.refit(5)).all()


def compensator(kind="lstsq", damping=0.01, memory=1 << 20) -> Compensator:
    return Compensator(kind, memory, damping)


def test_damping_more_is_said_once_with_layer_and_part():
    weight, _ = problem()
    singular = compensator(damping=0.0)
    for k in (3, 5):
        singular.projection((7, "mlp"), weight, None, k, lambda: Features(SINGULAR, SINGULAR[0], 1))
    assert len(singular.warnings) == 1
    assert "mlp of layer 7 is singular" in singular.warnings[0]


def test_a_regular_gram_is_not_warned_about():
    weight, inputs = problem()
    regular = compensator()
    regular.projection((0, "mlp"), weight, None, 3, lambda: Features(inputs.T @ inputs, inputs.sum(0), ROWS))
    assert regular.warnings == []


def test_a_gram_that_is_no_gram_is_refused():
    weight, _ = problem()
    with pytest.raises(MeasurementError, match="not positive definite"):
        factorise(weight, torch.full((CHANNELS, CHANNELS), float("nan")))


@pytest.mark.parametrize("kind", ["none", "bias", "lstsq"])
@pytest.mark.parametrize("bias", [None, torch.ones(OUT)])
def test_a_dense_bias_survives_every_compensation(kind, bias):
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    kept, new = compensator(kind).projection((0, "mlp"), weight, bias, 5, lambda: features)
    removed = removed_mean(weight, features.sums, ROWS, 5) if kind == "bias" else torch.zeros(OUT)
    assert kept.shape == (OUT, 5)
    if bias is None and kind != "bias":
        assert new is None
    else:
        torch.testing.assert_close(new, removed + (0 if bias is None else bias))


def test_a_refit_has_the_type_of_the_weight():
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    kept, _ = compensator().projection((0, "mlp"), weight.bfloat16(), None, 5, lambda: features)
    assert kept.dtype == torch.bfloat16


def test_what_is_remembered_is_made_once():
    made: list[int] = []
    memo = MemoryBound(1000)

    def make() -> Tensor:
        made.append(1)
        return torch.zeros(10)

    assert memo.get("a", make) is memo.get("a", make)
    assert len(made) == 1 and memo.used == 40


def test_memory_stays_within_its_bound_and_what_was_used_longest_ago_goes_first():
    memo = MemoryBound(100)
    first = memo.get("a", lambda: torch.zeros(10))
    memo.get("b", lambda: torch.zeros(10))
    assert memo.get("a", lambda: torch.ones(10)) is first
    memo.get("c", lambda: torch.zeros(10))
    assert memo.used == 80 and len(memo) == 2
    assert memo.get("a", lambda: torch.ones(10)) is first
    assert memo.get("b", lambda: torch.ones(10)).sum() == 10


def test_one_for_one_profile_remembers_refits_alone():
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    first = compensator(damping=0.1)
    other = first.for_one_profile()
    same = [each.projection((0, "mlp"), weight, None, 5, lambda: features)[0] for each in (first, other)]
    assert torch.equal(*same) and other.damping == 0.1 and other.memo.limit == first.memo.limit
    assert other.memo.used == same[1].nbytes < first.memo.used


def test_what_exceeds_the_bound_is_handed_out_but_not_kept():
    memo = MemoryBound(100)
    assert memo.get("a", lambda: torch.zeros(26)).shape == (26,)
    assert memo.used == 0 and len(memo) == 0
