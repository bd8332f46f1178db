from __future__ import annotations

import math

import pytest
import torch

from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.evaluation.fitness import Buckets, bucketed_kl, next_tokens, sequence_means, split


def slow_buckets(logits: torch.Tensor, indices: torch.Tensor) -> tuple[list[list[float]], list[float]]:
    """Probabilities of the buckets in float64, one token and one bucket at a time."""
    top, rest = [], []
    for row, chosen in zip(logits.double(), indices.tolist(), strict=True):
        weights = [math.exp(value - float(row.max())) for value in row.tolist()]
        total = math.fsum(weights)
        top.append([weights[index] / total for index in chosen])
        rest.append(math.fsum(weight for index, weight in enumerate(weights) if index not in set(chosen)) / total)
    return top, rest


def slow_kl(dense: torch.Tensor, candidate: torch.Tensor, indices: torch.Tensor) -> list[float]:
    """The definition: sum of p log(p / q) over the buckets."""
    (p_top, p_rest), (q_top, q_rest) = slow_buckets(dense, indices), slow_buckets(candidate, indices)
    return [
        math.fsum(p * math.log(p / q) for p, q in zip([*ps, p], [*qs, q], strict=True) if p > 0)
        for ps, p, qs, q in zip(p_top, p_rest, q_top, q_rest, strict=True)
    ]


def pair(n: int = 6, vocab: int = 40, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    dense = scale * torch.randn(n, vocab, generator=generator)
    return dense, dense + torch.randn(n, vocab, generator=generator)


def kl(dense: torch.Tensor, candidate: torch.Tensor, k: int) -> torch.Tensor:
    indices = dense.topk(k, dim=1).indices
    nothing = torch.zeros(len(dense), dtype=torch.int64)
    return bucketed_kl(
        split(dense.clone(), indices, nothing).buckets, split(candidate.clone(), indices, nothing).buckets
    )


@pytest.mark.parametrize("k", [1, 8, 39, 40])
def test_it_is_the_divergence_over_the_buckets(k: int) -> None:
    dense, candidate = pair()
    expected = slow_kl(dense, candidate, dense.topk(k, dim=1).indices)
    assert kl(dense, candidate, k).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_lumping_tokens_only_lowers_it() -> None:
    dense, candidate = pair()
    p = dense.log_softmax(1)
    full = (p.exp() * (p - candidate.log_softmax(1))).sum(1)
    by_k = [kl(dense, candidate, k) for k in (1, 4, 16, 40)]
    assert torch.allclose(by_k[-1], full, atol=1e-6)
    for fewer, more in zip(by_k, by_k[1:], strict=False):
        assert (fewer <= more + 1e-6).all()


def test_a_distribution_is_no_distance_from_itself() -> None:
    dense, _ = pair()
    assert kl(dense, dense, 8).abs().max() < 1e-6


def test_a_rest_too_small_for_one_minus_the_top_is_still_right() -> None:
    dense = torch.full((1, 20), -30.0)
    dense[0, :2] = torch.tensor([1.0, 0.0])
    candidate = dense.clone()
    candidate[0, 2:] = -25.0
    (p_top, p_rest), (q_top, q_rest) = (slow_buckets(each, torch.tensor([[0, 1]])) for each in (dense, candidate))
    for logits, rest in ((dense, p_rest), (candidate, q_rest)):
        found = split(logits.clone(), torch.tensor([[0, 1]]), torch.tensor([0])).buckets
        assert float(found.rest) == pytest.approx(math.log(rest[0]), abs=1e-4)
    assert 1.0 - sum(torch.tensor(p_top[0], dtype=torch.float32).tolist()) != pytest.approx(p_rest[0], rel=0.5)
    assert kl(dense, candidate, 2).item() == pytest.approx(0.0, abs=1e-6)


def test_an_empty_rest_is_finite() -> None:
    dense, candidate = torch.full((1, 20), -400.0), torch.full((1, 20), -400.0)
    dense[0, :2], candidate[0, :2] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    expected = (math.e - 1) / (math.e + 1)  # p - q is +-that over two tokens one nat apart
    assert kl(dense, candidate, 2).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_shows(bad: float) -> None:
    dense, candidate = pair()
    candidate[2, 5] = bad
    finite = torch.isfinite(kl(dense, candidate, 8)).tolist()
    assert finite == [True, True, False, True, True, True]


def test_split_gives_the_log_probability_of_the_chosen_token() -> None:
    dense, _ = pair()
    chosen = torch.tensor([0, 39, 3, 7, 7, 1])
    expected = dense.log_softmax(1).gather(1, chosen[:, None]).squeeze(1)
    found = split(dense.clone(), dense.topk(4, dim=1).indices, chosen).chosen
    assert torch.allclose(found, expected, atol=1e-5)


def test_half_precision_logits_are_reduced_in_float32() -> None:
    dense, _ = pair()
    half = dense.to(torch.bfloat16)
    found = split(half, dense.topk(4, dim=1).indices, torch.zeros(6, dtype=torch.int64)).buckets
    assert isinstance(found, Buckets)
    assert found.top.dtype == torch.float32
    assert torch.equal(half, dense.to(torch.bfloat16))


def test_the_last_position_counts_for_kl_and_not_for_the_next_token() -> None:
    per_token = torch.tensor([[1.0, 2.0, 6.0]])
    assert sequence_means(per_token, last=True) == [3.0]
    assert sequence_means(per_token, last=False) == [1.5]
    assert next_tokens(torch.tensor([[4, 5, 6]])).tolist() == [[5, 6, 6]]


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    assert perplexity((1.0, 3.0)) == pytest.approx(math.exp(2.0))
    assert perplexity((1e6,)) == math.inf
