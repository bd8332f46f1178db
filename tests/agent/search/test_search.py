"""The search as a whole on a tiny model: whoever decides, it ends with a valid result."""

import sqlite3
from dataclasses import fields
from types import SimpleNamespace

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.runtime import RunControl

from self_pruner.agent.brain.scripted import FirstBrain, UniformBrain
from self_pruner.agent.result.brain_totals import brain_faults
from self_pruner.agent.run_files.checkpoints import keep_newest
from self_pruner.agent.run_files.trace import NOTHING_NEW, Act, Think
from self_pruner.agent.search import graph
from self_pruner.agent.search.graph import build_graph, search
from self_pruner.agent.search.history import SearchHistory, best_of, closed_generations
from self_pruner.agent.search.initial_population import best_of_each, closed_form_of
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.prompt_variables import Observer, run_variables
from self_pruner.agent.search.proposers import Operators
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.records import Candidate, Generation, Score, Sensitivities
from self_pruner.memory.store import Memory
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluation.first_order import PASS_COST
from tests.bench import founded_bench, tiny_settings
from tests.scripted_brains import FailingBrain, ScriptBrain

TALKATIVE = {"plan": "brain", "thought_tokens": 8}  # a brain that decides all of its plans and leaves notes


class Search:
    """One search, and all that it left behind."""

    def __init__(self, path, brain, prompt_set="default", run="run", **values):
        self.settings = tiny_settings(prompt_set=prompt_set, **values)
        self.bench, self.starting = founded_bench(path, self.settings, run)
        self.records = []
        self.see = self.records.append
        prompts = PromptSet(prompt_set)
        variables = run_variables(self.bench, "tiny", "llama", 64, 10.0)
        observer = Observer(self.settings, variables, prompts.actions, prompts.hints)
        counted = (lambda messages: 0, 10_000, self.trace)
        self.notes = []
        thinker = Thinker(self.bench, self.settings, brain, prompts, observer, *counted, notes=lambda: list(self.notes))
        self.checkpoint = path / f"{run}.sqlite"
        self.connection = sqlite3.connect(self.checkpoint, check_same_thread=False)
        self.judge = Judgement(self.bench, self.settings, self.trace)
        self.graph = build_graph(thinker, self.judge, keep_newest(SqliteSaver(self.connection)))

    def trace(self, record):
        self.see(record)

    def go(self, control=None, before_turn=lambda: None):
        return search(self.graph, self.starting, 0, control or RunControl(), "run", before_turn)

    def candidates(self):
        return self.bench.memory.recall(Candidate, run=self.bench.run)

    def best(self):
        return self.bench.candidate(best_of(closed_generations(self.bench)))

    def assert_valid(self):
        best = self.best()
        assert self.bench.budget.holds(best.profile)
        assert SearchHistory(self.bench).read().ranked([row.id for row in self.candidates()])[0] == best.id
        assert all(self.bench.budget.holds(row.profile) for row in self.candidates())


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """One whole search, to be looked at only."""
    run = Search(tmp_path_factory.mktemp("ended"), UniformBrain(seed=1), **TALKATIVE)
    run.state = run.go()
    return run


@pytest.mark.parametrize("prompt_set", ["default", "paper"])
@pytest.mark.parametrize("brain", [UniformBrain, FirstBrain])
def test_any_brain_that_picks_legal_calls_finishes_with_a_valid_result(tmp_path, brain, prompt_set):
    run = Search(tmp_path, brain(seed=0), prompt_set)
    state = run.go()
    run.assert_valid()
    assert state.stop == "24 evaluations are used up"
    assert state.evaluations == 24
    assert len({row.profile for row in run.candidates()}) >= 24
    assert brain_faults(run.records)["illegal"] == 0


def test_the_result_is_no_worse_than_the_closed_forms(ended):
    best = ended.bench.fitness(ended.best().profile, ended.settings.fidelity[-1])
    seeds = [row for row in ended.candidates() if row.proposed_by == "seed"]
    found = {row: ended.bench.fitness(row.profile, ended.settings.fidelity[-1]) for row in seeds}
    measured = {closed_form_of(row) for row, fitness in found.items() if fitness}
    assert measured == {closed_form_of(row) for row in seeds}  # of each its best at least
    assert all(best.kl <= fitness.kl for fitness in found.values() if fitness)


def test_every_generation_keeps_its_best_and_stores_the_note(ended):
    generations = ended.bench.memory.recall(Generation, run="run", order="number")
    assert len(generations) >= 3
    for generation in generations:
        assert generation.best == generation.survivors[0]
    assert any(generation.note for generation in generations)


def test_nothing_is_measured_twice_and_every_token_is_charged(ended):
    own = [score for score in ended.bench.memory.recall(Score, text="fitness") if score.step > 0]
    passes = PASS_COST * len(ended.bench.memory.recall(Sensitivities))
    assert ended.state.tokens == (len(own) + passes) * ended.settings.sequence_length
    charged = sum(record.tokens for record in ended.records if isinstance(record, Act))
    assert charged == ended.state.tokens


def test_the_better_half_reaches_the_last_fidelity_and_the_best_of_each_closed_form_always_does(ended):
    calls = [record for record in ended.records if isinstance(record, Act) and record.tool == "evaluate"]
    first, second = calls[0].arguments["candidates"], calls[1].arguments["candidates"]
    assert set(ended.starting) <= {*first, "c1"}  # the uniform profile was measured before the first turn
    rows = {row.id: row for row in ended.candidates()}
    tokens = ended.bench.fidelity[0]
    ranked = sorted({*first, "c1"}, key=lambda name: ended.bench.fitness(rows[name].profile, tokens).kl)
    best = {row.id for row in best_of_each(rows[name] for name in ranked)}
    assert best <= set(second) <= {*first, "c1"}
    assert len(set(second) - best) <= (len(first) + 2) // 2


def test_a_brain_that_always_fails_is_stood_in_for_and_counted(tmp_path):
    run = Search(tmp_path, FailingBrain(), brain_failures=2, evaluations=30)
    state = run.go()
    run.assert_valid()
    assert state.evaluations == 30
    stand_ins = [record for record in run.records if isinstance(record, Think) and record.fallback]
    found = brain_faults(run.records)
    assert found["fallbacks"] == len(stand_ins) > 0
    assert found["failed_turns"] >= 2
    proposers = {row.proposed_by for row in run.candidates()}
    assert "brain" not in proposers and {"seed", "fallback"} < proposers
    assert {row.detail for row in run.candidates() if row.proposed_by == "fallback"} == {
        "drawn at random in the brain's place"
    }


def test_what_is_drawn_where_the_operators_find_nothing_new_is_not_told_as_a_brains(tmp_path, monkeypatch):
    monkeypatch.setattr(Operators, "_made", lambda self, proposer, count, here: [])
    run = Search(tmp_path, UniformBrain(seed=0), arm="evolution")
    run.go()
    drawn = {row.detail for row in run.candidates() if row.proposed_by == "fallback"}
    assert drawn == {"drawn at random, for the operators found nothing new"}


def test_illegal_replies_are_refused_before_any_tool_sees_them(tmp_path):
    wrong = {"name": "prune_model", "args": {"operator": "initialise", "attention": [9, 9, 9], "mlp": [1, 1, 1]}}
    brain = ScriptBrain(replies=[wrong, "no call at all", wrong])
    run = Search(tmp_path, brain, brain_failures=1, samples=2, evaluations=60, patience=60)
    run.go()
    run.assert_valid()
    assert brain_faults(run.records)["illegal"] == 3
    assert all(row.proposed_by != "brain" for row in run.candidates())


def test_the_same_seed_makes_the_same_candidates(ended, tmp_path):
    again = Search(tmp_path, UniformBrain(seed=1), **TALKATIVE)
    again.go()
    assert [(row.id, row.profile, row.detail) for row in again.candidates()] == [
        (row.id, row.profile, row.detail) for row in ended.candidates()
    ]


def test_a_second_run_starts_from_the_best_of_the_first_and_measures_nothing_again(tmp_path):
    first = Search(tmp_path, UniformBrain(seed=0), run="first")
    first.go()
    best = first.best().profile
    second = Search(tmp_path, UniformBrain(seed=0), run="second")
    state = second.go()
    remembered = [row for row in second.candidates() if row.proposed_by == "memory"]
    assert best in {row.profile for row in remembered}
    calls = [record for record in second.records if isinstance(record, Act) and record.tool == "evaluate"]
    measured = {
        name for call in calls if not call.arguments.get("sensitivities") for name in call.arguments["candidates"]
    }
    assert {row.id for row in remembered}.isdisjoint(measured)
    assert state.stop


def test_what_the_memory_knows_is_no_evaluation_and_the_help_says_so(tmp_path):
    made = []
    for name in ("first", "second"):
        run = Search(tmp_path, UniformBrain(seed=0), run=name, evaluations=10)
        assert run.go().evaluations == 10
        made.append(len(run.candidates()))
    assert made[1] > made[0]
    assert "that the memory lacks" in Settings.model_fields["evaluations"].description


def test_the_checkpoints_of_200_candidates_stay_small(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=200, offspring=12, patience=1000)
    state = run.go()
    assert state.evaluations == 200
    run.connection.commit()
    assert run.checkpoint.stat().st_size < 5_000_000
    assert not any(row.profile.key() in str(state) for row in run.candidates())


def test_a_search_asked_to_drain_stops_and_goes_on_where_it_was(tmp_path):
    whole = Search(tmp_path, UniformBrain(seed=0), run="whole")
    whole.go()
    (tmp_path / "b").mkdir()
    run = Search(tmp_path / "b", UniformBrain(seed=0), run="whole")
    control = RunControl()

    def see(record):
        run.records.append(record)
        if len(run.records) == 12:
            control.request_drain("test")

    run.see = see
    assert search(run.graph, run.starting, 0, control, "run") is None
    run.go()
    run.assert_valid()
    assert [row.profile for row in run.candidates()] == [row.profile for row in whole.candidates()]


def test_a_search_that_is_asked_to_stop_before_its_first_turn_begins_when_it_is_resumed(ended, tmp_path):
    run = Search(tmp_path, UniformBrain(seed=1), **TALKATIVE)
    control = RunControl()
    control.request_drain("test")
    assert search(run.graph, run.starting, 0, control, "run") is None
    assert run.records == []
    run.go()
    assert [row.profile for row in run.candidates()] == [row.profile for row in ended.candidates()]


def test_patience_ends_a_search_that_finds_nothing_better(tmp_path):
    run = Search(tmp_path, FirstBrain(), evaluations=10_000, patience=2)
    state = run.go()
    assert state.stop == "2 generations brought nothing better"
    run.assert_valid()


@pytest.mark.parametrize("arm", ["hybrid", "self", "evolution", "cma", "random", "trust-region", "best-of-n"])
@pytest.mark.parametrize("sparsity", [0.001, 0.82])  # nothing that could be cut, nothing but the smallest
def test_a_budget_of_one_profile_ends_with_it(tmp_path, arm, sparsity):
    run = Search(tmp_path, UniformBrain(seed=0), arm=arm, sparsity=sparsity, patience=2)
    assert run.go().stop == "2 generations brought nothing better"
    assert len({row.profile for row in run.candidates()}) == 1
    run.assert_valid()
    thoughts = [record for record in run.records if isinstance(record, Think)]
    assert any(record.prompt == NOTHING_NEW for record in thoughts)
    assert (brain_faults(run.records)["fallbacks"] > 0) == (arm == "self")  # no brain failed where none was asked


def test_a_search_that_an_older_version_stopped_is_refused_in_a_sentence(tmp_path, monkeypatch):
    run = Search(tmp_path, FirstBrain(), arm="uniform")
    run.go()
    newer = [*fields(SearchState), SimpleNamespace(name="newer")]  # what the checkpoint of then does not hold
    monkeypatch.setattr(graph, "fields", lambda state: newer)
    with pytest.raises(RunDirectoryError, match="of an older format: its search cannot go on, start anew"):
        run.go()


def test_a_fault_in_a_tool_that_no_brain_could_mend_ends_the_search(tmp_path, monkeypatch):
    run = Search(tmp_path, ScriptBrain(replies=[]))

    def broken(*arguments, **options):
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(Memory, "record", broken)
    with pytest.raises(RuntimeError, match="the machine is on fire"):
        run.go()
