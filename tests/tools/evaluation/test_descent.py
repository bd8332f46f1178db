from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.sharing import path
from self_pruner.tools.evaluation.targets import BATCH_TOKENS, DenseTargets
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import FAMILY_NAMES
from tests.tools.evaluation.populations import population, random_profile, text, tiny_elastic

STATE = 24 * 64 * 4  # bytes of one sequence of the tiny model: length x hidden x float32


def walk_of(elastic: ElasticModel, input_ids: Tensor, prefix_memory: int, **settings: int) -> PopulationWalk:
    store = ResidentLayers(elastic.model)
    targets = DenseTargets.build(elastic, store, input_ids, k=48)
    return PopulationWalk(elastic, store, targets, input_ids, prefix_memory=prefix_memory, **settings)


@pytest.fixture
def walk(elastic: ElasticModel) -> PopulationWalk:
    return walk_of(elastic, text(4, 24), 1 << 24)


PARENT = Profile((2, 3, 2), (6, 6, 6))
CHILD = PARENT.with_width(2, "mlp", 4)  # differs in the last of six blocks only


def scores(measured: list[Measurement]) -> list[tuple[object, ...]]:
    return [(found.profile, found.sequences, found.kl, found.nll, found.error) for found in measured]


def next_generation(elastic: ElasticModel, parents: list[Profile], rng: random.Random) -> list[Profile]:
    """Children one width away from some of `parents`, and a newcomer."""
    children = [random_profile(elastic.space, rng)]
    for _ in range(8):
        part, layer = rng.choice(("attention", "mlp")), rng.randrange(3)
        width = rng.randint(1, elastic.space.units(part))  # type: ignore[arg-type]
        children.append(rng.choice(parents).with_width(layer, part, width))  # type: ignore[arg-type]
    return children


# --- a walk that begins at kept states returns what a walk from the start returns, to the last bit ----------------


@pytest.mark.parametrize("prefix_memory", [1 << 24, 40 * STATE, 24 * STATE])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_search_with_kept_states_scores_bit_for_bit_as_one_without(
    family: str, prefix_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    elastic, rng = tiny_elastic(family), random.Random(prefix_memory)
    with_states, without = walk_of(elastic, text(4, 24), prefix_memory), walk_of(elastic, text(4, 24), 0)
    parents = population(elastic.space, 8, rng)
    put, puts = with_states.prefixes.put, 0

    def counting(rows: range, prefix: tuple[int, ...], state: Tensor) -> bool:
        nonlocal puts
        puts += 1
        return put(rows, prefix, state)

    monkeypatch.setattr(with_states.prefixes, "put", counting)
    for _ in range(5):
        for rows, group in [(range(0, 1), parents), (range(1, 2), parents), (range(2, 4), parents[::2])]:
            assert scores(with_states.measure(group, rows)) == scores(without.measure(group, rows))
            assert with_states.prefixes.held_bytes <= prefix_memory
        parents = next_generation(elastic, parents[::2], rng)
    assert with_states.counters.kept > 0
    assert (puts > len(with_states.prefixes)) == (prefix_memory < 1 << 24)  # the small ones had to evict
    assert without.counters.kept == without.prefixes.held_bytes == 0
    assert with_states.counters.alone == without.counters.alone
    assert with_states.counters.computed + with_states.counters.kept == without.counters.computed
    assert with_states.counters.within == without.counters.within


def test_states_of_some_sequences_serve_the_same_sequences_only(elastic: ElasticModel) -> None:
    walk, without = walk_of(elastic, text(4, 24), 1 << 24), walk_of(elastic, text(4, 24), 0)
    walk.measure([PARENT], range(0, 2))
    for rows in (range(1, 2), range(1, 3), range(2, 4)):
        assert scores(walk.measure([CHILD], rows)) == scores(without.measure([CHILD], rows))
    assert walk.counters.kept == 0


def test_a_text_of_several_batches_and_turns_scores_the_same(elastic: ElasticModel) -> None:
    input_ids = text(5, BATCH_TOKENS // 2)
    state = BATCH_TOKENS // 2 * 64 * 4
    walk = walk_of(elastic, input_ids, 200 * state, state_memory=9 * state)  # turns of three and of two sequences
    without = walk_of(elastic, input_ids, 0, state_memory=9 * state)
    assert scores(walk.measure([PARENT, CHILD], range(5))) == scores(without.measure([PARENT, CHILD], range(5)))
    children = [PARENT.with_width(2, "attention", 1), CHILD.with_width(2, "mlp", 5)]
    assert scores(walk.measure(children, range(5))) == scores(without.measure(children, range(5)))
    assert walk.counters.kept > 0


# --- only what is not covered is computed -------------------------------------------------------------------------


def test_a_child_is_computed_from_where_it_leaves_its_parent(walk: PopulationWalk) -> None:
    walk.measure([PARENT], range(1))
    walk.measure([CHILD], range(1))  # five blocks of the parent serve
    assert (walk.counters.computed, walk.counters.kept) == ((6 + 1) * 24, 5 * 24)
    assert (walk.counters.alone, walk.counters.within) == (2 * 6 * 24, 0)


def test_siblings_that_begin_at_different_depths_still_share(walk: PopulationWalk) -> None:
    walk.measure([PARENT], range(1))
    before = walk.counters.computed
    early = PARENT.with_width(1, "attention", 1)  # leaves after two blocks
    walk.measure([early, early.with_width(2, "mlp", 3), CHILD, PARENT.with_width(2, "mlp", 5)], range(1))
    assert walk.counters.computed - before == (3 + 2 * 1 + 2 * 1) * 24


def test_layers_that_all_candidates_begin_behind_are_not_asked_for(elastic: ElasticModel) -> None:
    asked: list[int] = []

    class Counting(ResidentLayers):
        @contextmanager
        def layer(self, index: int) -> Iterator[nn.Module]:
            asked.append(index)
            with super().layer(index) as layer:
                yield layer

    walk = walk_of(elastic, text(1, 24), 1 << 24)
    walk.measure([PARENT], range(1))
    walk.store = Counting(elastic.model)
    walk.measure([CHILD, PARENT.with_width(1, "mlp", 4)], range(1))
    assert asked == [1, 2]


def test_progress_counts_what_was_kept_as_done(walk: PopulationWalk) -> None:
    walk.measure([PARENT], range(1))
    steps: list[tuple[int, int]] = []
    walk.measure([CHILD], range(1), lambda *step: steps.append(step))
    assert steps == [(5, 8), (6, 8), (8, 8)]


# --- what must not be left or used --------------------------------------------------------------------------------


def test_a_candidate_that_is_not_finite_leaves_no_state_of_its_own(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = PARENT.with_width(1, "attention", 1)
    real = walk.elastic.attention_block

    def broken(layer: nn.Module, index: int, width: int, *rest: object) -> Tensor:
        state = real(layer, index, width, *rest)
        return state * math.nan if (index, width) == (1, 1) else state

    monkeypatch.setattr(walk.elastic, "attention_block", broken)
    measured = walk.measure([bad, PARENT], range(1))
    assert [found.error is None for found in measured] == [False, True]
    assert walk.prefixes.deepest(range(1), path(PARENT))[0] == 5
    assert walk.prefixes.deepest(range(1), path(bad))[0] == 2  # what it shares with one that did not fail
    assert len(walk.prefixes) == 5
    monkeypatch.undo()
    assert scores(walk.measure([bad], range(1))) == scores(
        walk_of(walk.elastic, text(4, 24), 0).measure([bad], range(1))
    )


@pytest.mark.parametrize("kind", [SelfPrunerError, RuntimeError, KeyboardInterrupt])
def test_a_walk_that_breaks_off_leaves_no_state_of_who_was_not_scored(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def broken(layer: nn.Module, index: int, width: int, *rest: object) -> Tensor:
        if index == 2:
            raise kind("broken")
        return real(layer, index, width, *rest)

    real = walk.elastic.mlp_block
    monkeypatch.setattr(walk.elastic, "mlp_block", broken)
    if kind is SelfPrunerError:
        assert walk.measure([PARENT], range(1))[0].error == "broken"
    else:
        with pytest.raises(kind):
            walk.measure([PARENT], range(1))
    assert len(walk.prefixes) == walk.prefixes.held_bytes == 0


def test_a_candidate_that_fails_on_a_later_turn_leaves_no_state_of_an_earlier_one(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = walk_of(elastic, text(2, 24), 1 << 24, state_memory=1)
    calls = 0
    real = elastic.mlp_block

    def broken(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += index == 2
        return real(layer, index, width, hidden) * (math.nan if calls == 2 else 1.0)

    monkeypatch.setattr(elastic, "mlp_block", broken)
    assert walk.measure([PARENT], range(2))[0].error == "the logits are not finite (NaN or infinite) on sequence 1."
    assert len(walk.prefixes) == 0


def test_states_from_before_the_model_was_written_to_are_not_used() -> None:
    elastic = tiny_elastic("llama")
    walk = walk_of(elastic, text(1, 24), 1 << 24)
    walk.measure([PARENT], range(1))
    with torch.no_grad():
        elastic.model.get_parameter("model.layers.0.mlp.gate_proj.weight").mul_(1.5)
    found = walk.measure([CHILD], range(1))
    fresh = PopulationWalk(elastic, walk.store, walk.targets, walk.input_ids, prefix_memory=0)
    assert scores(found) == scores(fresh.measure([CHILD], range(1)))
    assert walk.counters.kept == 0


def test_states_from_before_the_text_was_written_to_are_not_used(elastic: ElasticModel) -> None:
    walk = walk_of(elastic, text(1, 24), 1 << 24)
    walk.measure([PARENT], range(1))
    walk.input_ids[0, 0] += 1
    walk.measure([CHILD], range(1))
    assert walk.counters.kept == 0


def test_no_walk_writes_to_a_kept_state(walk: PopulationWalk) -> None:
    walk.measure([PARENT], range(1))
    depth, state = walk.prefixes.deepest(range(1), path(CHILD))
    assert state is not None
    before = state.clone()
    walk.measure([CHILD, PARENT.with_width(2, "mlp", 2)], range(1))
    assert depth == 5
    assert torch.equal(state, before)


def test_states_are_given_up_before_a_turn_is_halved_for_memory(
    walk: PopulationWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scores(walk.measure([PARENT, CHILD], range(1)))
    real = walk.elastic.mlp_block

    def full(layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        if len(walk.prefixes):
            raise torch.OutOfMemoryError("no room")
        return real(layer, index, width, hidden)

    monkeypatch.setattr(walk.elastic, "mlp_block", full)
    sizes: list[int] = []
    embed = walk.elastic.embed
    monkeypatch.setattr(walk.elastic, "embed", lambda ids: sizes.append(len(ids)) or embed(ids))
    assert scores(walk.measure([PARENT, CHILD], range(1))) == expected
    assert [found.error for found in walk.measure([PARENT, CHILD], range(4))] == [None, None]
    assert sizes == [1, 1, 4]
    assert walk.prefixes.memory_bytes == len(walk.prefixes) == 0
