"""Sensitivities in a search: who measures them, at whom, what they cost, and what follows from them."""

import itertools

import pytest

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.prepare.texts import sensitivity_text
from self_pruner.agent.run_files.trace import Act, Judge
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.initial_population import CLOSED_FORM, closed_form_of
from self_pruner.agent.search.learned_costs import quadratic_model
from self_pruner.agent.search.planning.shown import next_step
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.records import Candidate, Score, Sensitivities
from self_pruner.tools.evaluation.first_order import PASS_COST, FirstOrderError
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.profiles.quadratic_model import CURVATURES, QuadraticModel
from self_pruner.tools.workbench import FITNESS
from tests.agent.search.test_search import Search


def hybrid(path, run="run", **settings):
    return Search(path, UniformBrain(seed=0), run=run, **({"arm": "hybrid", "evaluations": 36} | settings))


def is_sensitivities(record):
    return isinstance(record, Act) and bool(record.arguments.get("sensitivities"))


def is_step(record):
    """Whether the operator `model` made a candidate: one that others ask for afterwards is known already."""
    if not isinstance(record, Act) or record.tool != "prune_model":
        return False
    (row,) = record.result["candidates"]
    return not row["known"] and row["proposed_by"] == "model"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """One whole search, to be looked at only, and the state it ended in."""
    run = hybrid(tmp_path_factory.mktemp("ended"))
    return run, run.go()


def test_sensitivities_are_measured_first_at_the_best_additive_form_then_at_the_best_and_charged(ended):
    run, state = ended
    additive = [row.id for row in run.candidates() if row.proposed_by == "seed" and closed_form_of(row) == CLOSED_FORM]
    best, centres = "", []
    for record in run.records:
        if isinstance(record, Judge):
            best = record.best
        elif is_sensitivities(record):
            (centre,) = record.arguments["candidates"]
            expected = best if centres else SearchHistory(run.bench).read().ranked(additive)[0]
            assert centre == expected
            centres.append(centre)
            assert record.arguments == {
                "candidates": [centre],
                "fidelity": run.bench.fidelity[-1],
                "sensitivities": True,
            }
            assert record.tokens == PASS_COST * run.bench.sensitivity_tokens  # fitness there is known already
    assert state.centre == centres[-1]
    assert len(set(centres)) == len(centres) > 1  # a best that stays is not measured again
    assert all(run.bench.sensitivities(run.bench.candidate(name).profile) for name in centres)
    charged = sum(record.tokens for record in run.records if isinstance(record, Act))
    assert charged == state.tokens


@pytest.mark.parametrize("settings", [{"sensitivities": 0}, {"arm": "evolution"}, {"arm": "self"}], ids=str)
def test_nobody_else_measures_them(tmp_path, settings):
    run = hybrid(tmp_path, **{"evaluations": 18, **settings})
    assert run.go().centre == ""
    assert not any(map(is_sensitivities, run.records))
    assert run.bench.memory.recall(Sensitivities) == []


def test_they_are_not_measured_where_no_candidate_could_be_paid_for_after_them(tmp_path):
    needed = hybrid(tmp_path).bench
    few = PASS_COST * needed.sensitivity_tokens + 2 * needed.fidelity[-1]
    run = hybrid(tmp_path, tokens=few)  # the first population takes its share of these
    assert run.go().centre == ""
    assert not any(map(is_sensitivities, run.records))


def test_the_model_maker_goes_on_from_the_centre(tmp_path):
    run = hybrid(tmp_path, sensitivities=2)  # in every other generation the centre need not be the best
    run.go()
    centre, steps = "", 0
    for record in run.records:
        if is_sensitivities(record):
            (centre,) = record.arguments["candidates"]
        elif is_step(record) and centre:
            assert record.arguments["parents"] == [centre]
            steps += 1
    assert steps > 1


def test_the_step_of_least_predicted_fitness_is_taken_first(tmp_path, monkeypatch):
    # the sensitivities of a random model are too weak for a step against any curvature
    monkeypatch.setattr("self_pruner.agent.search.learned_costs.learned_curvature", lambda steps: 0.0)
    run = hybrid(tmp_path)
    run.go()
    after = itertools.dropwhile(lambda record: not is_sensitivities(record), run.records)
    (centre,) = next(after).arguments["candidates"]
    first = next(filter(is_step, after))
    profile = run.bench.candidate(centre).profile
    step = QuadraticModel(run.bench.costs, profile, run.bench.sensitivities(profile), curvature=0.0).step(
        run.bench.budget
    )
    assert step != profile
    assert run.bench.candidate(first.result["candidates"][0]["id"]).profile == step


def test_the_curvature_is_learned_from_the_steps_of_the_run(ended):
    run, state = ended
    history = SearchHistory(run.bench).read(state.centre)
    local = quadratic_model(history, state.centre)
    assert local is not None and local.predict(run.bench.candidate(state.centre).profile) == 0.0
    low, high = CURVATURES
    assert low <= local.curvature <= high
    before = QuadraticModel(local.costs, local.centre, local.sensitivities).curvature
    assert local.curvature != before
    unmeasured = next(row.id for row in run.candidates() if not run.bench.sensitivities(row.profile))
    assert quadratic_model(history, unmeasured) is None
    assert quadratic_model(history, "") is None


def test_the_next_step_is_shown_where_it_moves_something(ended, monkeypatch):
    run, state = ended
    history = SearchHistory(run.bench).read(state.centre)
    monkeypatch.setattr("self_pruner.agent.search.learned_costs.learned_curvature", lambda steps: 0.0)
    shown = next_step(history, state)
    assert shown is not None and shown.moves and shown.change < 0
    monkeypatch.setattr(QuadraticModel, "step", lambda self, budget: self.centre)
    assert next_step(history, state) is None


@pytest.mark.parametrize("sequences", [0, 1, 6])  # before the first, between two, in the second measurement
def test_a_run_killed_between_two_sequences_goes_on_to_the_same_candidates(ended, tmp_path, monkeypatch, sequences):
    (whole, expected), run = ended, hybrid(tmp_path)
    real, taken = PopulationWalk.first_order, itertools.count()

    def killed(*arguments):
        for found in real(*arguments):
            if next(taken) == sequences:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(PopulationWalk, "first_order", killed)
        with pytest.raises(KeyboardInterrupt):
            run.go()
    assert len(run.bench.memory.recall(Sensitivities)) == sequences
    state = run.go()
    assert all(getattr(state, name) == getattr(expected, name) for name in ("centre", "centred_at", "tokens", "step"))
    assert run.bench.memory.recall(Candidate) == whole.bench.memory.recall(Candidate)
    assert run.bench.memory.recall(Sensitivities) == whole.bench.memory.recall(Sensitivities)


def test_a_best_without_finite_sensitivities_is_tried_once_and_the_search_goes_on(tmp_path, monkeypatch):
    def none_finite(*arguments):
        raise FirstOrderError("fitness has no finite sensitivities at this profile; try --dtype float32")

    monkeypatch.setattr(PopulationWalk, "first_order", none_finite)
    run = hybrid(tmp_path, evaluations=18)
    state = run.go()
    run.assert_valid()
    tried = [record.arguments["candidates"][0] for record in run.records if is_sensitivities(record)]
    assert len(set(tried)) == len(tried) > 0
    assert quadratic_model(SearchHistory(run.bench).read(state.centre), state.centre) is None


def test_sensitivities_are_measured_on_other_text_than_candidates_and_on_other_text_each_time(ended):
    run, _ = ended
    ranked = {row.sequence for row in run.bench.memory.recall(Score, text=FITNESS)}
    windows = {}
    for row in run.bench.memory.recall(Sensitivities):
        windows.setdefault(row.profile, set()).add(row.sequence)
    drawn = list(windows.values())
    assert len(drawn) > 1
    assert all(not window & ranked for window in drawn)
    assert not drawn[0] & drawn[1]


@pytest.mark.parametrize(
    ("available", "windows"), [(40, 4), (22, 3), (21, 2), (14, 1), (13, 0), (6, 0)], ids=lambda value: str(value)
)
def test_where_sensitivities_are_measured_follows_from_the_length_of_the_text(available, windows):
    settings = Settings(sequence_length=16, fidelity=(32, 64), probe_tokens=16, final_tokens=96, sensitivity_tokens=64)
    start, length = 10, 4
    found = sensitivity_text(settings, available)
    if windows:
        assert found == {"sensitivity_start": start, "sensitivity_windows": windows, "sensitivity_tokens": 64}
        assert start + windows * length <= available
    else:  # the ranked tokens, as far as they go
        assert found == {"sensitivity_start": 0, "sensitivity_windows": 1, "sensitivity_tokens": 64}
        assert (
            sensitivity_text(settings.model_copy(update={"sensitivity_tokens": 640}), available)["sensitivity_tokens"]
            == 64
        )
