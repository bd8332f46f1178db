"""Arms: whoever decides, a search is valid, on budget, within its cost, and made by those the arm names."""

import pytest

from self_pruner.agent.arms import ARM_NAMES, ARMS, MAKERS
from self_pruner.agent.brain.schema import violations
from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Think
from self_pruner.agent.search.initial_population import DETAILS
from self_pruner.agent.search.legal_calls import legal_turn
from self_pruner.agent.search.proposers import NEAR, Operators, history, learned
from self_pruner.agent.search.state import cost, first_state
from self_pruner.agent.search.step_size import step_size
from self_pruner.agent.search.turn_facts import facts
from self_pruner.memory.records import Candidate, Generation
from tests.agent.search.test_search import Search
from tests.bench import LENGTH, founded_bench, tiny_settings

SEARCHING = [name for name in ARM_NAMES if ARMS[name].searches]
CLOSED = [name for name in ARM_NAMES if not ARMS[name].searches]


def made(name):
    return {*ARMS[name].initial, *ARMS[name].vary} | {"seed", "fallback"}


@pytest.mark.parametrize("name", SEARCHING)
def test_every_arm_ends_with_a_valid_result_made_by_those_it_names(tmp_path, name):
    run = Search(tmp_path, UniformBrain(seed=0), ARMS[name].prompt_set, arm=name, evaluations=18)
    state = run.go()
    run.assert_valid(state)
    proposers = {row.proposed_by for row in run.candidates()}
    # a draw is asked for by the brain, a switch fills up for a maker that found nothing new
    assert proposers <= made(name) | {"switch", "draw"}
    assert proposers & {*ARMS[name].vary}
    asked = [record for record in run.records if isinstance(record, Think) and record.replies]
    assert bool(asked) == ARMS[name].asks_brain


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_is_measured_in_full_and_ends(tmp_path, name):
    run = Search(tmp_path, UniformBrain(seed=0), arm=name)
    state = run.go()
    (row,) = run.candidates()
    assert row.detail == DETAILS[name] and state["best"] == row.id
    assert run.bench.budget.holds(row.profile)
    assert run.bench.fitness(row.profile, run.settings.fidelity[-1]) is not None
    assert state["stop"] == "a closed form has nothing to search"


@pytest.mark.parametrize("name", ["evolution", "hybrid"])
def test_no_search_costs_more_than_it_may(tmp_path, name):
    limit = 60 * LENGTH
    run = Search(tmp_path, UniformBrain(seed=0), arm=name, tokens=limit, evaluations=10_000)
    state = run.go()
    assert cost(state) <= limit
    assert "too few are left" in state["stop"]
    assert state["evaluations"] > len(run.founders)


def test_chance_picks_among_the_very_calls_that_the_brain_may_make(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid", evaluations=18)
    offered = {}
    tools = run.go and run.records
    state = run.go()
    assert state["best"]
    calls = [
        record
        for record in tools
        if isinstance(record, Act) and record.tool == "prune_model" and record.arguments.get("by") == "chance"
    ]
    assert calls
    for record in calls:
        offered.setdefault(record.step, record)
        arguments = {name: value for name, value in record.arguments.items() if name != "by"}
        assert set(arguments) <= {"operator", "parents", "edits", "layers", "mask", "attention", "mlp"}


def test_chance_calls_are_legal_in_the_state_they_are_made_in(tmp_path):
    settings = tiny_settings(arm="hybrid")
    bench, founders = founded_bench(tmp_path, settings)
    state = {**first_state(founders, 0), "generation": 1, "population": founders, "offspring": []}
    for name in founders:  # parents need a fitness before they can be varied
        bench.memory.record(*[row for row in bench.memory.recall(Candidate, run=bench.run, id=name)])
    known = facts(bench, settings, state)
    turn = legal_turn(known, ("mutation-edits", "crossover-range"))
    operators = Operators(bench, settings, ARMS["hybrid"])
    calls = [call for call in operators.calls(state, known, turn) if call["arguments"]["by"] == "chance"]
    assert calls
    offers = [variant[0]["function"]["parameters"] for variant in turn.variants]
    for call in calls:
        arguments = {key: value for key, value in call["arguments"].items() if key != "by"}
        assert any(not violations(offer, arguments) for offer in offers)


def test_every_maker_keeps_a_place_in_every_full_generation(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid", offspring=10, evaluations=60)
    run.go()
    generations = run.bench.memory.recall(Generation, run="run")
    seen = history(run.bench, len(generations))
    assert len(seen) >= 2
    for generation in seen[:-1]:
        tried = {maker for maker in ARMS["hybrid"].vary if maker in generation}
        assert len(tried) >= 4  # the tiny space runs out of new profiles for one of them at times


def test_the_surrogate_learns_from_what_the_run_measured(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid")
    run.go()
    rows = run.candidates()
    found = {row.profile: run.bench.fitness(row.profile, run.bench.fidelity[0]) for row in rows}
    known = {profile: fitness.kl for profile, fitness in found.items() if fitness and fitness.kl is not None}
    near = [kl for kl in known.values() if kl <= NEAR * min(known.values())]
    assert learned(run.bench, rows).measured == len(near)
    assert 2 < len(near) < len(known)
    assert learned(run.bench, rows[:2]).measured <= 2


def test_the_step_goes_from_coarse_to_fine(tmp_path):
    settings = tiny_settings(arm="evolution", step_rule="rounds", mutation_step=4, evaluations=24)
    bench, founders = founded_bench(tmp_path, settings)
    state = {**first_state(founders, 0), "generation": 1}
    steps = [step_size(bench, settings, {**state, "evaluations": spent}) for spent in (0, 8, 16, 23)]
    assert steps == [4, 2, 1, 1]


def test_every_maker_has_a_name_that_a_candidate_can_carry():
    from typing import get_args

    from self_pruner.memory.records import Proposer

    assert set(MAKERS) <= set(get_args(Proposer))
