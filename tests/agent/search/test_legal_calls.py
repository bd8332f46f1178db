"""The rules of legal calls: one purpose a turn, nothing that a tool would refuse, progress whoever decides."""

import random
from dataclasses import replace

import pytest

from self_pruner.agent.brain.schema import first_call, sample_call, violations
from self_pruner.agent.search.legal_calls import Place, Situation, legal_calls, levels
from self_pruner.tools.profiles.space import Space

SPACE = Space(n_layers=3, n_groups=4, n_blocks=12, group_params=500, block_params=100, fixed_params=10, mlp_unit=8)
ACTIONS = ("mutation-edits", "mutation-vectors", "crossover-range", "crossover-mask")
HERE = Situation(
    space=SPACE,
    generation=1,
    population=("c1", "c2"),
    missing=0,
    pending=(),
    fidelity=32,
    ranked=("c1", "c2", "c3", "c4", "c5"),
    survivors=3,
    timeable=(),
    cut=(Place(0, "mlp", 5), Place(1, "attention", 1)),
    grow=(Place(2, "mlp", 2),),
    step=4,
    samples=8,
)


def parameters(here, actions=ACTIONS):
    return [tool["function"]["parameters"] for tool in legal_calls(here, actions).tools]


def test_missing_offspring_come_before_everything_else():
    turn = legal_calls(replace(HERE, missing=5, pending=("c9",), timeable=("c1",)), ACTIONS)
    assert [tool["function"]["name"] for tool in turn.tools] == ["prune_model"]
    assert (turn.purpose, turn.replies) == ("vary", 5)


def test_no_more_replies_are_sampled_than_a_turn_may_have():
    assert legal_calls(replace(HERE, missing=20), ACTIONS).replies == 8


def test_the_first_generation_is_initialised_and_later_ones_are_varied():
    assert legal_calls(replace(HERE, missing=1, generation=0), ACTIONS).purpose == "initialise"
    assert legal_calls(replace(HERE, missing=1, generation=1), ACTIONS).purpose == "vary"


def test_evaluation_is_decided_without_asking_and_names_all_that_is_pending():
    turn = legal_calls(replace(HERE, pending=("c8", "c9")), ACTIONS)
    assert turn.decided == {"name": "evaluate", "arguments": {"candidates": ["c8", "c9"], "fidelity": 32}}
    assert violations(turn.tools[0]["function"]["parameters"], turn.decided["arguments"]) == []


def test_sensitivities_that_are_due_come_before_everything_else_and_without_asking():
    turn = legal_calls(replace(HERE, centre="c2", missing=5, pending=("c9",)), ACTIONS)
    arguments = {"candidates": ["c2"], "fidelity": 32, "sensitivities": True}
    assert (turn.purpose, turn.decided) == ("evaluate", {"name": "evaluate", "arguments": arguments})
    assert violations(turn.tools[0]["function"]["parameters"], arguments) == []


def test_timing_is_offered_beside_the_end_of_the_generation_and_not_instead_of_it():
    names = [tool["function"]["name"] for tool in legal_calls(replace(HERE, timeable=("c2",)), ACTIONS).tools]
    assert names == ["benchmark_latency", "record_population"]


def test_no_choice_of_survivors_repeats_a_candidate_or_loses_the_best():
    (schema,) = parameters(HERE)
    for seed in range(200):
        survivors = sample_call(schema, random.Random(seed))["survivors"]
        assert survivors[0] == "c1"
        assert len(set(survivors)) == len(survivors) == 3


@pytest.mark.parametrize("actions", [(action,) for action in ACTIONS] + [ACTIONS, ()])
def test_every_set_of_actions_leaves_something_to_say(actions):
    (schema,) = parameters(replace(HERE, missing=3, population=("c1",)), actions)
    assert violations(schema, first_call(schema)) == []


def test_edits_never_cut_or_grow_beyond_the_room_there_is():
    (schema,) = parameters(replace(HERE, missing=3), ("mutation-edits",))
    room = {(0, "mlp"): 5, (1, "attention"): 1, (2, "mlp"): 2}
    for seed in range(200):
        for edit in sample_call(schema, random.Random(seed))["edits"]:
            assert 1 <= abs(edit["change"]) <= room[edit["layer"], edit["part"]]
            assert (edit["change"] < 0) == ((edit["layer"], edit["part"]) != (2, "mlp"))


def test_crossover_needs_two_different_parents():
    (schema,) = parameters(replace(HERE, missing=3), ("crossover-range",))
    pairs = {tuple(sample_call(schema, random.Random(seed))["parents"]) for seed in range(50)}
    assert pairs == {("c1", "c2"), ("c2", "c1")}
    (alone,) = parameters(replace(HERE, missing=3, population=("c1",)), ("crossover-range",))
    assert sample_call(alone, random.Random(0))["operator"] == "mutation"


def test_where_nothing_that_a_set_offers_is_possible_whole_vectors_are():
    (schema,) = parameters(replace(HERE, missing=3, population=("c1",), cut=()), ("mutation-edits", "crossover-mask"))
    assert schema["anyOf"][0]["properties"].keys() == {"operator", "parents", "attention", "mlp"}
    assert len(schema["anyOf"]) == 1


@pytest.mark.parametrize("units", [1, 2, 3, 8, 48, 224])
def test_levels_of_whole_vectors_hold_the_dense_width_and_stay_few(units):
    found = levels(units)
    assert found == sorted(set(found))
    assert found[-1] == units
    assert 1 <= found[0] <= max(1, units // 3)
    assert len(found) <= 13


def test_every_reply_of_a_turn_decides_among_other_places():
    cut = tuple(Place(layer, "mlp", 3) for layer in range(8))
    grow = tuple(Place(layer, "attention", 3) for layer in range(8))
    turn = legal_calls(replace(HERE, missing=8, cut=cut, grow=grow), ("mutation-edits",))
    assert len(turn.variants) == turn.replies == 8
    (whole,) = (tool["function"]["parameters"] for tool in turn.tools)
    offered = []
    for (tool,) in turn.variants:
        schema = tool["function"]["parameters"]
        calls = [sample_call(schema, random.Random(seed)) for seed in range(80)]
        assert all(violations(whole, call) == [] for call in calls)
        offered.append(frozenset(edit["layer"] for call in calls for edit in call["edits"] if edit["part"] == "mlp"))
    assert {len(layers) for layers in offered} == {4}
    assert len(set(offered)) == 8
