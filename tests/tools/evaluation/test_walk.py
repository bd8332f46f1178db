from __future__ import annotations

import gc
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor, nn

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.evaluation.targets import BATCH_TOKENS, DenseTargets
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import FAMILY_NAMES
from tests.tools.evaluation.populations import TOP, assert_same, population, text, tiny_elastic, walk_of


def reference(elastic: ElasticModel, walk: PopulationWalk, profile: Profile, row: int) -> tuple[float, float]:
    """KL and negative log-likelihood of one sequence from whole logits, in float64 and by the definitions."""
    input_ids = walk.input_ids[row : row + 1]
    q = elastic.logits(input_ids, profile)[0].double().log_softmax(-1)
    p = elastic.logits(input_ids, elastic.space.dense())[0].double().log_softmax(-1)
    top = p.topk(TOP, dim=-1).indices
    p_top, q_top = p.gather(1, top), q.gather(1, top)
    p_rest, q_rest = 1 - p_top.exp().sum(1), 1 - q_top.exp().sum(1)
    kl = (p_top.exp() * (p_top - q_top)).sum(1) + p_rest * (p_rest / q_rest).log()
    return float(kl.mean()), -float(q[:-1].gather(1, input_ids[0, 1:, None]).mean())


# --- the walk returns what evaluating alone returns ---------------------------------------------------------------


@pytest.mark.parametrize("compensation", ["none", "bias", "lstsq"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_population_scores_as_each_candidate_does_from_its_own_whole_logits(family: str, compensation: str) -> None:
    elastic = tiny_elastic(family, compensation)
    walk = walk_of(elastic, text(3, 24))
    profiles = population(elastic.space, 9, random.Random(0))
    for profile, found in zip(profiles, walk.measure(profiles, range(3)), strict=True):
        assert found.profile == profile
        for row in range(3):
            kl, nll = reference(elastic, walk, profile, row)
            assert found.kl[row] == pytest.approx(kl, rel=1e-3, abs=1e-5)
            assert found.nll[row] == pytest.approx(nll, rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_population_scores_as_each_candidate_does_in_a_walk_of_its_own(walk: PopulationWalk, seed: int) -> None:
    rng = random.Random(seed)
    profiles = population(walk.elastic.space, rng.randint(3, 16), rng)
    first = rng.randrange(3)
    rows = range(first, rng.randint(first + 1, 4))
    for profile, found in zip(profiles, walk.measure(profiles, rows), strict=True):
        assert_same(found, walk.measure([profile], rows)[0])


def test_a_sliding_window_is_kept_to() -> None:
    elastic = tiny_elastic("mistral", sliding_window=8)
    walk = walk_of(elastic, text(2, 24))
    profile = elastic.space.dense().with_width(1, "mlp", 6)
    (found,) = walk.measure([profile], range(1))
    assert found.kl[0] == pytest.approx(reference(elastic, walk, profile, 0)[0], rel=1e-3)


def test_the_dense_profile_is_no_distance_from_the_dense_model(walk: PopulationWalk) -> None:
    (found,) = walk.measure([walk.elastic.space.dense()], range(4))
    assert found.fitness == pytest.approx(0.0, abs=1e-6)
    assert found.nll == pytest.approx(walk.targets.nll)
    assert found.perplexity == pytest.approx(math.exp(sum(walk.targets.nll) / 4))
    assert found.tokens == 4 * 24


# --- sharing ------------------------------------------------------------------------------------------------------


def test_candidates_share_every_block_up_to_where_they_part(walk: PopulationWalk) -> None:
    parent = Profile((2, 2, 2), (6, 6, 6))
    child = parent.with_width(1, "mlp", 5)  # parts after three of six blocks
    walk.measure([parent, child, parent], range(1))
    assert walk.counters.computed == (3 + 2 * 3) * 24
    assert walk.counters.alone == 2 * 6 * 24  # the parent was asked for twice, and is one candidate
    assert walk.counters.sharing == pytest.approx(12 / 9)


def test_every_layer_is_asked_for_once_a_population(elastic: ElasticModel) -> None:
    class Counting(ResidentLayers):
        asked: list[int] = []

        @contextmanager
        def layer(self, index: int) -> Iterator[nn.Module]:
            self.asked.append(index)
            with super().layer(index) as layer:
                yield layer

    store = Counting(elastic.model)
    input_ids = text(4, 24)
    walk = PopulationWalk(elastic, store, DenseTargets.build(elastic, store, input_ids), input_ids)
    Counting.asked.clear()
    walk.measure(population(elastic.space, 8, random.Random(1)), range(4))
    assert Counting.asked == [0, 1, 2]


def test_one_state_a_distinct_prefix_is_alive_and_no_more(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = walk_of(elastic, text(3, BATCH_TOKENS // 2))  # so that a batch is smaller than a state
    parent = elastic.space.dense()
    profiles = [parent.with_width(0, "mlp", 5), parent.with_width(1, "mlp", 5), parent.with_width(2, "mlp", 5), parent]
    most = 0
    real = elastic.mlp_block

    def counting(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        nonlocal most
        size = 3 * (BATCH_TOKENS // 2) * 64 * 4
        storages = [each.untyped_storage() for each in gc.get_objects() if type(each) is Tensor]
        most = max(most, len({each.data_ptr() for each in storages if each.nbytes() == size}))
        return real(layer, index, width, hidden)

    monkeypatch.setattr(elastic, "mlp_block", counting)
    walk.measure(profiles, range(3))
    assert most == 4


def test_a_memory_bound_changes_the_turns_and_not_the_result(elastic: ElasticModel) -> None:
    profiles = population(elastic.space, 7, random.Random(2))
    free, bound = walk_of(elastic, text(4, 24)), walk_of(elastic, text(4, 24), state_memory=1)
    turns: list[range] = []
    real = elastic.embed
    bound.elastic.embed = lambda ids: turns.append(ids.shape) or real(ids)  # type: ignore[method-assign]
    try:
        measured = bound.measure(profiles, range(4))
    finally:
        del elastic.embed
    assert turns == [(1, 24)] * 4
    for found, expected in zip(measured, free.measure(profiles, range(4)), strict=True):
        assert_same(found, expected)


def test_progress_rises_to_its_total(walk: PopulationWalk) -> None:
    steps: list[tuple[int, int]] = []
    walk.measure(population(walk.elastic.space, 6, random.Random(3)), range(4), lambda *step: steps.append(step))
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1][0] == steps[-1][1]


def test_a_walk_factors_a_place_at_most_once_whatever_may_be_remembered() -> None:
    profiles = population(tiny_elastic().space, 9, random.Random(1))
    places = {
        (layer, part)
        for profile in profiles
        for part in PARTS
        for layer, width in enumerate(profile.widths(part))
        if width < (4 if part == "attention" else 12)
    }
    found: list[list[Measurement]] = []
    for memory in (0, 20_000, 1 << 30):
        elastic = tiny_elastic(refit_memory=memory)
        walk = walk_of(elastic, text(4, 24))
        found.append(walk.measure(profiles, range(4)))
        assert elastic.compensator.factorisations == len(places)
        walk.measure(profiles, range(4))
        again = elastic.compensator.factorisations - len(places)
        assert again == 0 if memory == 1 << 30 else 0 < again <= len(places)
    assert [[one.kl for one in some] for some in found] == [[one.kl for one in found[0]]] * 3  # to the last bit


def test_states_are_kept_for_the_sequences_that_are_walked_and_no_more_than_half_of_what_is_free(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, ids, parent = 24 * 64 * 4, text(8, 24), Profile((2, 3, 2), (6, 6, 6))
    targets = DenseTargets.build(elastic, elastic.store, ids, k=TOP)
    kept = {}
    for walked in (2, None):
        walk = PopulationWalk(elastic, elastic.store, targets, ids, prefix_memory=8 * state, walked=walked)
        for row in range(2):
            walk.measure([parent], range(row, row + 1))
        kept[walked] = len(walk.prefixes)
    assert kept == {2: 8, None: 2}
    monkeypatch.setattr("self_pruner.tools.evaluation.walk.free_memory", lambda device: 0)
    walk.measure([parent], range(1))
    assert walk.prefixes.memory_bytes == state and len(walk.prefixes) == 1


# --- the door -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequences", [range(0), range(5), range(-1, 2), range(0, 4, 2)])
def test_sequences_the_text_does_not_have_are_refused(walk: PopulationWalk, sequences: range) -> None:
    with pytest.raises(MeasurementError, match="sequences 0 to 3"):
        walk.measure([walk.elastic.space.dense()], sequences)


def test_a_profile_of_another_model_is_refused(walk: PopulationWalk) -> None:
    with pytest.raises(MeasurementError, match=r"not a profile of this model: 4,4\|12,12"):
        walk.measure([Profile((4, 4), (12, 12))], range(1))


def test_targets_of_another_text_are_refused(walk: PopulationWalk) -> None:
    with pytest.raises(MeasurementError, match="another text"):
        PopulationWalk(walk.elastic, walk.store, walk.targets, walk.input_ids + 1)


def test_nobody_is_measured_at_once(walk: PopulationWalk) -> None:
    assert walk.measure([], range(2)) == []
