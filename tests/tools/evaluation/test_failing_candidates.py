"""A candidate that fails is a row, and the others do not notice; memory that is short changes no result."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.walk import PopulationWalk
from tests.tools.evaluation.populations import assert_same, population, text, tiny_elastic, walk_of


def test_a_candidate_that_is_not_finite_fails_alone(walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Profile((2, 3, 2), (6, 6, 6))
    profiles = [parent, parent.with_width(1, "mlp", 4), parent.with_width(1, "mlp", 5), parent.with_width(2, "mlp", 4)]
    expected = [walk.measure([profile], range(4))[0] for profile in profiles]
    real = walk.elastic.mlp_block

    def broken(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        state = real(layer, index, width, hidden)
        return state * math.nan if (index, width) == (1, 4) else state

    monkeypatch.setattr(walk.elastic, "mlp_block", broken)
    measured = walk.measure(profiles, range(4))
    for number in (0, 2, 3):
        assert_same(measured[number], expected[number])
    failed = measured[1]
    assert failed.error == "the logits are not finite (NaN or infinite) on sequence 0."
    assert (failed.kl, failed.nll, failed.tokens) == ((), (), 0)
    assert failed.fitness == failed.perplexity == math.inf


@pytest.mark.parametrize("kind", [SelfPrunerError, torch.linalg.LinAlgError])
def test_a_compensation_that_cannot_be_computed_fails_all_who_need_it_and_no_other(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    parent = Profile((2, 3, 2), (6, 6, 6))
    bad = parent.with_width(0, "attention", 1)
    profiles = [bad, parent, bad.with_width(2, "mlp", 4)]
    expected = walk.measure([parent], range(2))[0]
    real = walk.elastic.attention_block

    def broken(layer: nn.Module, index: int, width: int, *rest: object) -> Tensor:
        if (index, width) == (0, 1):
            raise kind("the Gram matrix is singular")
        return real(layer, index, width, *rest)

    monkeypatch.setattr(walk.elastic, "attention_block", broken)
    steps: list[tuple[int, int]] = []
    measured = walk.measure(profiles, range(2), lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1]
    assert [found.error for found in measured] == ["the Gram matrix is singular", None, "the Gram matrix is singular"]
    assert_same(measured[1], expected)


def test_memory_that_holds_one_sequence_only_still_gives_the_result(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = population(walk.elastic.space, 6, random.Random(4))
    expected = walk.measure(profiles, range(4))
    real = walk.elastic.mlp_block

    def small(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        if hidden.shape[0] > 1:
            raise torch.OutOfMemoryError("tried to allocate 1 TiB")
        return real(layer, index, width, hidden)

    monkeypatch.setattr(walk.elastic, "mlp_block", small)
    for found, each in zip(walk.measure(profiles, range(4)), expected, strict=True):
        assert_same(found, each)


def test_memory_that_is_short_is_freed_of_states_and_refits_before_a_turn_is_halved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elastic = tiny_elastic()
    walk = walk_of(elastic, text(4, 24), prefix_memory=1 << 24)
    profiles = population(elastic.space, 6, random.Random(4))
    expected = walk.measure(profiles, range(4))
    held = elastic.compensator.memo.used
    assert held > 0 and len(walk.prefixes) > 0
    walk.prefixes.clear()
    real, seen = elastic.attention_block, []

    def full(layer: nn.Module, index: int, width: int, hidden: Tensor, *rest: object) -> Tensor:
        if index == 0:
            seen.append(elastic.compensator.memo.used)
        if seen[-1] == held:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return real(layer, index, width, hidden, *rest)

    monkeypatch.setattr(elastic, "attention_block", full)
    turns: list[int] = []
    embed = elastic.embed
    monkeypatch.setattr(elastic, "embed", lambda ids: turns.append(len(ids)) or embed(ids))
    for found, each in zip(walk.measure(profiles, range(4)), expected, strict=True):
        assert_same(found, each)
    assert turns == [4, 4] and seen[:2] == [held, 0]  # all of the turn again, with the refits gone
    assert elastic.compensator.memo.limit <= held // 2 and walk.prefixes.memory_bytes == 0
    walk.measure(profiles, range(4))
    assert turns == [4, 4, 4] and walk.prefixes.memory_bytes == 0  # met once


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room"),
        MemoryError("no room"),
        RuntimeError("x: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        torch.linalg.LinAlgError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnSpotrf`"),
    ],
)
def test_a_candidate_that_never_fits_fails_alone(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    profiles = population(walk.elastic.space, 8, random.Random(5))
    big = profiles[3]
    rest = [profile for profile in profiles if profile.mlp[2] != big.mlp[2]]
    expected = {profile: walk.measure([profile], range(4))[0] for profile in rest}
    real = walk.elastic.mlp_block

    def full(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        if (index, width) == (2, big.mlp[2]):
            raise error
        return real(layer, index, width, hidden)

    monkeypatch.setattr(walk.elastic, "mlp_block", full)
    assert rest
    for found in walk.measure(profiles, range(4)):
        if found.profile in expected:
            assert_same(found, expected[found.profile])
        else:
            assert found.error and found.error.startswith("out of memory even alone on one sequence: ")


def test_a_fault_that_is_no_candidates_own_is_not_swallowed(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(walk.elastic, "mlp_block", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        walk.measure([walk.elastic.space.dense()], range(1))
