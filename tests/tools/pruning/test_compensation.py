"""Compensation: the refit solves its least-squares problem for every width, the bias keeps the mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.pruning.compensation import Compensator, removed_mean, slice_residuals
from self_pruner.tools.pruning.least_squares import PANEL, factorise
from self_pruner.tools.pruning.moments import Features

OUT, CHANNELS, ROWS = 6, 12, 40


def problem(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight [out, channels] and correlated inputs [rows, channels] with a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS, CHANNELS, generator=generator)
    inputs = torch.randn(rows, CHANNELS, generator=generator) @ mixing + 1
    return torch.randn(OUT, CHANNELS, generator=generator), inputs


def refit(weight: Tensor, gram: Tensor, k: int, damping: float = 0.01) -> Tensor:
    """The first `k` columns refitted, from a factor of their own."""
    return factorise(gram.clone, damping).refit(weight, k)


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
    factor = factorise(gram.float)
    damped = gram + factor.ridge * torch.eye(CHANNELS)
    for k in range(1, CHANNELS + 1):
        alone = weight.double() @ damped[:, :k] @ torch.linalg.inv(damped[:k, :k])
        torch.testing.assert_close(factor.refit(weight, k).double(), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [700, 1180])
def test_no_refit_makes_anything_as_large_as_the_factor(k):
    inputs, weight = torch.randn(64, 1200), torch.randn(32, 1200)
    factor, carried = factorise(lambda: inputs.T @ inputs), torch.randn(32, k)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        factor.refit(weight, k)
        factor.refit(weight, k, carried)
        factor.first_order(factor.projected(weight), weight)
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert weight.nbytes <= largest <= 4 * PANEL**2 < factor.nbytes / 5  # a block of its diagonal is copied


@pytest.mark.parametrize("damping", [1e-4, 0.01, 1.0])
def test_a_factor_with_carried_errors_solves_for_the_output_and_the_error_at_every_width(damping):
    weight, inputs = problem()
    error = torch.randn(ROWS, OUT, generator=torch.Generator().manual_seed(1)) + inputs[:, :OUT]
    factor, carried = factorise(lambda: inputs.T @ inputs, damping), error.T @ inputs
    for k in range(1, CHANNELS + 1):
        expected = literal_refit(weight, inputs, k, damping, error)
        torch.testing.assert_close(factor.refit(weight, k, carried).double(), expected, rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize("channels", [88, 96, 100])
def test_the_bias_is_the_same_to_the_bit_wherever_the_weight_lies_in_memory(channels):
    generator = torch.Generator().manual_seed(0)
    weight, sums = torch.randn(72, channels, generator=generator), torch.randn(channels, generator=generator)
    room = torch.empty(weight.numel() + 16)
    for k in (1, 16, 37, 61):
        expected = removed_mean(weight, sums, 155, k)
        for place in range(16):
            moved = room[place : place + weight.numel()].view_as(weight).copy_(weight)
            assert torch.equal(removed_mean(moved, sums, 155, k), expected), (k, place)


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
    factor = factorise(lambda: inputs.T @ inputs, damping)
    expected = [error(weight, factor.refit(weight, k), inputs) for k in cuts]
    scale = error(weight, weight[:, :0], inputs)
    assert factor.residuals(weight, list(cuts)).tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6 * scale)


# A product of one row with itself is singular in every leading block from 2 on, exactly so for small integers.
SINGULAR = torch.ones(CHANNELS, CHANNELS)


def test_a_singular_gram_is_damped_more():
    weight, _ = problem()
    factor = factorise(SINGULAR.clone, damping=0.0)
    assert factor.damping > 0
    assert torch.isfinite(factor.refit(weight, 5)).all()


def copied(features: Features) -> Features:
    """The same in memory of its own, as a compensator wants it."""
    return replace(features, gram=features.gram.clone())


def compensator(kind="lstsq", damping=0.01, memory=1 << 20) -> Compensator:
    return Compensator(kind, memory, damping)


def test_damping_more_is_said_once_with_layer_and_part():
    weight, _ = problem()
    singular = compensator(damping=0.0)
    for k in (3, 5):
        singular.projection((7, "mlp"), weight, None, k, lambda: Features(SINGULAR.clone(), SINGULAR[0], 1))
    assert len(singular.warnings) == 1
    assert "mlp of layer 7 is singular" in singular.warnings[0]


def test_a_regular_gram_is_not_warned_about():
    weight, inputs = problem()
    regular = compensator()
    regular.projection((0, "mlp"), weight, None, 3, lambda: Features(inputs.T @ inputs, inputs.sum(0), ROWS))
    assert regular.warnings == []


def test_a_gram_that_is_no_gram_is_refused():
    with pytest.raises(MeasurementError, match="not positive definite"):
        factorise(lambda: torch.full((CHANNELS, CHANNELS), float("nan")))


@pytest.mark.parametrize("kind", ["none", "bias", "lstsq"])
@pytest.mark.parametrize("bias", [None, torch.ones(OUT)])
def test_a_dense_bias_survives_every_compensation(kind, bias):
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    kept, new = compensator(kind).projection((0, "mlp"), weight, bias, 5, lambda: copied(features))
    removed = removed_mean(weight, features.sums, ROWS, 5) if kind == "bias" else torch.zeros(OUT)
    assert kept.shape == (OUT, 5)
    if bias is None and kind != "bias":
        assert new is None
    else:
        torch.testing.assert_close(new, removed + (0 if bias is None else bias))


def test_a_refit_has_the_type_of_the_weight():
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    kept, _ = compensator().projection((0, "mlp"), weight.bfloat16(), None, 5, lambda: copied(features))
    assert kept.dtype == torch.bfloat16


@pytest.mark.parametrize("memory", [0, 200, 1 << 20])
def test_what_is_asked_of_a_place_in_a_row_takes_one_factor_whatever_may_be_remembered(memory):
    weight, inputs = problem()
    made = compensator(memory=memory)

    def features() -> Features:
        return Features(inputs.T @ inputs, inputs.sum(0), ROWS)

    for place in ((0, "attention"), (0, "mlp"), (1, "attention")):
        first = [made.projection(place, weight, None, k, features)[0] for k in (3, 5, 3, 8)]
        assert first[0] is first[2]
        made.first_order(place, weight, weight, weight[:, 0], features)
        made.residuals(place, weight, [3, 5], features)
    assert (made.factorisations, made.refits, len(made.factored)) == (3, 9, 3)


def test_refits_that_fit_are_made_once_and_others_once_a_pass():
    weight, inputs = problem()
    places = [(layer, "mlp") for layer in range(6)]

    def features() -> Features:
        return Features(inputs.T @ inputs, inputs.sum(0), ROWS)

    def factorisations(made: Compensator) -> list[int]:
        counts = []
        for _ in range(3):
            before = made.factorisations
            with made.one_pass():
                for place in places:
                    for k in (4, 5, 4):
                        made.projection(place, weight, None, k, features)
            counts.append(made.factorisations - before)
        return counts

    refits = OUT * (4 + 5) * 4
    assert factorisations(compensator(memory=1 << 20)) == [6, 0, 0]
    assert factorisations(compensator(memory=6 * refits)) == [6, 0, 0]  # factors give way to refits
    assert factorisations(compensator(memory=3 * refits)) == [6, 3, 3]
    assert factorisations(compensator(memory=0)) == [6, 6, 6]


@pytest.mark.parametrize("channels", [300, 1100])
def test_a_factor_made_in_blocks_is_as_accurate_as_one_made_in_float64(channels):
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, 3, channels)  # a few channels far above the others, as in language models
    inputs = torch.randn(2 * channels, channels, generator=generator) * scales
    weight = torch.randn(OUT, channels, generator=generator)
    gram = inputs.T @ inputs
    factor = factorise(gram.clone)
    exact = gram.double() + factor.ridge * torch.eye(channels)
    whole = (weight.double() @ exact * weight.double()).sum().sqrt()
    for k in (1, channels // 2, channels - 2):
        expected = weight.double() @ torch.linalg.solve(exact[:k, :k], exact[:k]).T
        wrong = factor.refit(weight, k).double() - expected
        assert ((wrong @ exact[:k, :k]) * wrong).sum().sqrt() < 1e-4 * whole, k
    assert torch.equal(factor.lower, factor.lower.tril())


def test_a_gram_too_ill_conditioned_for_float32_is_factored_in_float64():
    weight, _ = problem()
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator, dtype=torch.float64)).Q
    gram = (rotation * torch.logspace(0, -9, CHANNELS, dtype=torch.float64)) @ rotation.T
    factor = factorise(gram.clone, damping=1e-8)
    assert factor.damping == 1e-8  # float32 alone would have damped it more, or been wrong
    exact = gram + factor.ridge * torch.eye(CHANNELS)
    product = factor.lower.double() @ factor.lower.double().T
    torch.testing.assert_close(product, exact, rtol=0, atol=1e-7)
