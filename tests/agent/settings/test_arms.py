"""Arms: whoever decides, a search is valid, on budget, within its cost, and made by those the arm names."""

from dataclasses import replace

import pytest

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Judge, Think
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.initial_population import closed_form_of, most_profiles
from self_pruner.agent.search.learned_costs import NEAR, surrogate
from self_pruner.agent.search.planning.hypotheses import legal_shifts, line
from self_pruner.agent.search.proposers import Operators
from self_pruner.agent.search.schedule import mean_cost, missing_offspring, situation, step_size
from self_pruner.agent.search.state import first_state
from self_pruner.agent.settings.arms import ARM_NAMES, ARMS, OFFSPRING_PROPOSERS
from self_pruner.agent.settings.limits import cost
from self_pruner.memory.records import Generation
from tests.agent.search.test_search import Search
from tests.bench import LENGTH, founded_bench, tiny_settings

SEARCHING = [name for name in ARM_NAMES if ARMS[name].searches]
CLOSED = [name for name in ARM_NAMES if not ARMS[name].searches]


def made(name):
    return {*ARMS[name].initial, *ARMS[name].vary} | {"seed", "fallback"}


@pytest.mark.parametrize("name", SEARCHING)
def test_every_arm_ends_with_a_valid_result_made_by_those_it_names(tmp_path, name):
    run = Search(tmp_path, UniformBrain(seed=0), ARMS[name].prompt_set, arm=name, evaluations=18)
    run.go()
    run.assert_valid()
    proposers = {row.proposed_by for row in run.candidates()}
    assert proposers <= made(name) | {"switch"}  # which fills up for a proposer that found nothing new
    assert proposers & {*ARMS[name].vary}
    asked = [record for record in run.records if isinstance(record, Think) and record.replies]
    assert bool(asked) == ARMS[name].asks_brain


def test_where_nothing_is_inherited_every_candidate_varies_the_best_closed_form(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="best-of-n", evaluations=24)
    run.go()
    rows = {row.id: row for row in run.candidates()}
    seeds = [row.id for row in rows.values() if row.proposed_by == "seed"]
    best = SearchHistory(run.bench).read().ranked(seeds)[0]
    later = [row for row in rows.values() if row.generation]
    assert later and all(row.proposed_by == "switch" and row.parents == (best,) for row in later)


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_is_measured_in_full_and_ends(tmp_path, name):
    run = Search(tmp_path, UniformBrain(seed=0), arm=name)
    state = run.go()
    rows = run.candidates()
    assert 1 <= len(rows) <= most_profiles(run.bench.budget, name) and len({closed_form_of(row) for row in rows}) == 1
    assert all(run.bench.budget.holds(row.profile) for row in rows)
    measured = {row: run.bench.fitness(row.profile, run.settings.fidelity[-1]) for row in rows}
    assert run.best() == min((row for row in rows if measured[row]), key=lambda row: measured[row].kl)
    assert state.stop == "a closed form has nothing to search"


@pytest.mark.parametrize("name", ["evolution", "hybrid"])
def test_no_search_costs_more_than_it_may(tmp_path, name):
    limit = 60 * LENGTH
    run = Search(tmp_path, UniformBrain(seed=0), arm=name, tokens=limit, evaluations=10_000)
    state = run.go()
    assert cost(state.spent) <= limit
    assert "too few are left" in state.stop
    assert state.evaluations > len(run.starting)
    measured = [run.bench.fitness(row.profile, run.settings.fidelity[-1]) for row in run.candidates()]
    last = [record for record in run.records if isinstance(record, Judge)][-1]
    assert not state.offspring and last.stop == state.stop  # what it had measured is recorded, and known to its trace
    assert last.fitness == min(found.kl for found in measured if found)


def test_what_an_operator_made_is_written_down_as_it_is(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid", evaluations=18)
    run.go()
    acts = [record for record in run.records if isinstance(record, Act) and record.tool == "prune_model"]
    of_operators = [act for act in acts if act.result["candidates"][0]["proposed_by"] != "brain"]
    assert {act.result["candidates"][0]["proposed_by"] for act in of_operators} >= {"chance", "model"}
    for act in of_operators:
        (row,) = act.result["candidates"]
        assert not row["known"] and (row["attention"], row["mlp"]) == (act.arguments["attention"], act.arguments["mlp"])
        assert act.arguments.keys() == {"operator", "parents", "attention", "mlp"}


def test_chance_states_hypotheses_that_the_brain_may_state(tmp_path):
    settings = tiny_settings(arm="hybrid")
    bench, starting = founded_bench(tmp_path, settings)
    state = replace(first_state(starting, 0), generation=1, population=starting, offspring=[])
    history = SearchHistory(bench).read()
    here = situation(history, settings, state)
    made = [one for one in Operators(history, settings, state).proposals(here) if one["proposed_by"] == "chance"]
    assert made
    parent = history.profile(starting[0])
    possible = line(bench.budget, starting[0], parent, legal_shifts(here), "chance")
    allowed = list(possible)
    assert all(one in allowed for one in made)


def test_every_maker_keeps_a_place_in_every_full_generation(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid", offspring=10, evaluations=60)
    run.go()
    generations = run.bench.memory.recall(Generation, run="run")
    seen = SearchHistory(run.bench).read().yields()
    assert len(seen) == len(generations) - 1
    assert len(seen) >= 2
    for generation in seen[:-1]:
        assert set(ARMS["hybrid"].vary) <= set(generation)


def test_the_surrogate_learns_from_what_the_run_measured(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), arm="hybrid", evaluations=40, seed=1)
    run.go()
    rows = run.candidates()
    found = {row.profile: run.bench.fitness(row.profile, run.bench.fidelity[0]) for row in rows}
    known = {profile: fitness.kl for profile, fitness in found.items() if fitness and fitness.kl is not None}
    near = [kl for kl in known.values() if kl <= NEAR * min(known.values())]
    assert surrogate(SearchHistory(run.bench).read()).measured == len(near)
    assert 2 < len(near) < len(known)
    assert surrogate(SearchHistory(replace(run.bench, run="another")).read()).measured == 0


def test_the_step_grows_with_success_and_shrinks_without(tmp_path):
    settings = tiny_settings(arm="evolution", mutation_step=4)
    bench, starting = founded_bench(tmp_path, settings)
    first = bench.candidate(starting[0])
    rows = [replace(first, id=f"c{10 * number}", generation=number, step=number) for number in range(1, 13)]
    bench.memory.record(*rows)

    def steps(survivors):
        found = []
        for row in [first, *rows]:
            bench.memory.record(Generation(bench.run, row.generation, survivors(row), row.id, "", 1))
            found.append(step_size(SearchHistory(bench).read(), settings))
        return found

    assert steps(lambda row: (row.id,))[:6] == [4, 6, 9, 12, 12, 12]  # three times the first at the most
    bench = replace(bench, run="another")
    bench.memory.record(*(replace(row, run="another") for row in [first, *rows]))
    shrinking = steps(lambda row: ("c1",))
    assert (shrinking[:4], shrinking[-1]) == ([4, 4, 3, 3], 1)


def test_every_maker_has_a_name_that_a_candidate_can_carry():
    from typing import get_args

    from self_pruner.memory.records import Proposer

    assert set(OFFSPRING_PROPOSERS) <= set(get_args(Proposer))


@pytest.mark.parametrize(("affordable", "missing"), [(0.5, 1), (2.5, 2), (5.0, 5), (40.0, 5)])
def test_no_more_offspring_are_made_than_can_be_measured_to_their_end(tmp_path, affordable, missing):
    fidelity = (2 * LENGTH, 4 * LENGTH)
    assert mean_cost(fidelity) == 3 * LENGTH  # all in the first stage, half of them in the second
    settings = tiny_settings(arm="evolution", tokens=1000 * LENGTH, offspring=5)
    bench, starting = founded_bench(tmp_path, settings)
    spent = settings.tokens - int(affordable * mean_cost(fidelity))
    made = replace(first_state(starting, spent), generation=1, population=starting, offspring=[])
    assert missing_offspring(SearchHistory(bench).read(), settings, made) == missing
    one = replace(made, offspring=starting[:1])
    assert missing_offspring(SearchHistory(bench).read(), settings, one) == missing - 1
