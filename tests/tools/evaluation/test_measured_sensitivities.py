"""Sensitivities as the tool measures them: a row a sequence, charged once, known when all are there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from self_pruner.memory.errors import ToolError
from self_pruner.memory.records import Sensitivities
from self_pruner.tools import evaluate as tool
from self_pruner.tools.evaluation.first_order import PASS_COST, FirstOrderError, first_order_sensitivities
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.workbench import FITNESS
from tests.bench import LENGTH, tiny_bench, tiny_settings
from tests.tools.evaluation.populations import PLACES, PROFILES

SEQUENCES = range(4)  # what the tool is told to measure sensitivities on


@pytest.fixture
def bench(tmp_path):
    return tiny_bench(tmp_path, tiny_settings())  # sensitivities on four sequences


@pytest.fixture
def taken(monkeypatch):
    """The sequences on which sensitivities were taken; after `taken.limit` of them the process is as good as killed."""

    class Taken(list):
        limit = 1000

    taken, real = Taken(), PopulationWalk.first_order

    def counted(walk, profile, sequences):
        for sequence, costs in real(walk, profile, sequences):
            if len(taken) == taken.limit:
                raise KeyboardInterrupt
            taken.append(sequence)
            yield sequence, costs

    monkeypatch.setattr(PopulationWalk, "first_order", counted)
    return taken


def test_sensitivities_are_a_row_a_sequence_and_known_once_all_of_them_are(bench, taken):
    profile = PROFILES[0]
    taken.limit = 2
    with pytest.raises(KeyboardInterrupt):
        tool.measure_sensitivities(bench, [profile], SEQUENCES, step=3)
    assert bench.sensitivities(profile) == ()
    taken.limit = 1000
    tool.measure_sensitivities(bench, [profile], SEQUENCES, step=3)
    assert taken == [0, 1, 2, 3]  # what was there already is not measured again
    walk = bench.walks[FITNESS]
    alone = (first_order_sensitivities(bench.elastic, walk.store, walk.targets, profile, [one]) for one in range(4))
    assert bench.sensitivities(profile) == tuple(costs for (costs,) in alone)  # to the last bit, together or alone
    assert bench.sensitivities(PROFILES[1]) == ()


def test_progress_counts_the_sequences_of_all_profiles(bench, taken):
    steps = []
    bench = replace(bench, progress=lambda *step: steps.append(step))
    tool.measure_sensitivities(bench, PROFILES[:1], SEQUENCES, step=3)
    tool.measure_sensitivities(bench, PROFILES, SEQUENCES, step=3)
    assert steps == [(done, 4) for done in range(1, 5)] + [(done, 8) for done in range(1, 9)]
    assert taken == [0, 1, 2, 3] * 2


def test_whoever_measures_sensitivities_first_is_charged_for_them_and_nobody_again(bench):
    whole = PASS_COST * 4 * LENGTH
    tool.measure_sensitivities(bench, PROFILES[:1], SEQUENCES, step=3)
    assert tool.charge_sensitivities(bench, [PROFILES[0]] * 2, step=3) == whole
    tool.measure_sensitivities(bench, PROFILES, SEQUENCES, step=4)
    assert tool.charge_sensitivities(bench, PROFILES, step=4) == whole  # of the other profile
    assert tool.charge_sensitivities(bench, PROFILES, step=5) == 0
    another = replace(bench, run="another")
    tool.measure_sensitivities(another, PROFILES, SEQUENCES, step=3)
    assert tool.charge_sensitivities(another, PROFILES, step=3) == 0
    assert {row.run for row in bench.memory.recall(Sensitivities)} == {"run"}


def test_weights_that_are_not_finite_have_no_sensitivities_and_it_is_said_in_one_sentence(bench):
    bench.elastic.model.model.layers[2].mlp.gate_proj.weight[0] = float("nan")
    walk = bench.walks[FITNESS]
    with pytest.raises(
        FirstOrderError, match=r"^fitness has no finite sensitivities at 1,4,2\|5,12,8; try --dtype float32$"
    ):
        first_order_sensitivities(bench.elastic, walk.store, walk.targets, PROFILES[0], [0])
    with pytest.raises(ToolError, match="^fitness has no finite sensitivities at [^\n]*$"):
        tool.measure_sensitivities(bench, PROFILES[:1], SEQUENCES, step=3)
    assert bench.memory.recall(Sensitivities) == []


@pytest.mark.parametrize("room", [True, False])
def test_a_generation_factors_a_place_once_where_there_is_room_and_once_a_pass_where_there_is_none(bench, room):
    made = bench.elastic.compensator
    made.memo.limit *= room
    others = [PROFILES[0].with_width(layer, "mlp", width) for layer in range(3) for width in (1, 6, 9)]
    tool.measure(bench, [*PROFILES, *others], range(2), step=3)
    assert 0 < made.factorisations <= len(PLACES)  # on a few sequences,
    tool.measure(bench, PROFILES, range(4), step=3)
    assert made.factorisations <= (1 if room else 2) * len(PLACES)  # the better ones on more,
    tool.measure_sensitivities(bench, PROFILES[:1], SEQUENCES, step=3)
    assert made.factorisations <= (1 if room else 4) * len(PLACES)  # and there and back again
