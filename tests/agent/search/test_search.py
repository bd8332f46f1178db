"""The search as a whole on a tiny model: whoever decides, it ends with a valid result."""

import sqlite3

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.runtime import RunControl

from self_pruner.agent.brain.scripted import FailingBrain, FirstBrain, ScriptBrain, UniformBrain
from self_pruner.agent.result.brain_totals import brain_faults
from self_pruner.agent.run_files.pruned_checkpoints import keep_newest
from self_pruner.agent.run_files.trace import Act, Think
from self_pruner.agent.search.graph import Judgement, build_graph, search
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.prompt_variables import Observer, run_facts
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.search.think import Thinker
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.records import Candidate, Generation, Score, Slopes
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.profiles.operators import uniform
from tests.bench import founded_bench, tiny_settings


class Search:
    """One search, and all that it left behind."""

    def __init__(self, path, brain, prompt_set="default", run="run", **values):
        self.settings = tiny_settings(prompt_set=prompt_set, **values)
        self.bench, self.starting = founded_bench(path, self.settings, run)
        self.records = []
        self.see = self.records.append
        prompts = PromptSet(prompt_set)
        facts = run_facts(self.bench, "tiny", "llama", 64, 10.0, uniform(self.bench.budget))
        observer = Observer(self.settings, facts, prompts.actions, prompts.hints)
        thinker = Thinker(self.bench, self.settings, brain, prompts, observer, lambda messages: 0, 10_000, self.trace)
        self.checkpoint = path / f"{run}.sqlite"
        self.connection = sqlite3.connect(self.checkpoint, check_same_thread=False)
        judge = Judgement(self.bench, self.settings, self.trace)
        self.graph = build_graph(self.bench, thinker, judge, keep_newest(SqliteSaver(self.connection)))

    def trace(self, record):
        self.see(record)

    def go(self):
        return search(self.graph, self.starting, 0, RunControl(), "run")

    def candidates(self):
        return self.bench.memory.recall(Candidate, run=self.bench.run)

    def assert_valid(self, state):
        best = self.bench.candidate(state["best"])
        assert self.bench.budget.holds(best.profile)
        assert SearchHistory(self.bench).read().ranked([row.id for row in self.candidates()])[0] == best.id
        assert all(self.bench.budget.holds(row.profile) for row in self.candidates())


@pytest.mark.parametrize("prompt_set", ["default", "paper"])
@pytest.mark.parametrize("brain", [UniformBrain, FirstBrain])
def test_any_brain_that_picks_legal_calls_finishes_with_a_valid_result(tmp_path, brain, prompt_set):
    run = Search(tmp_path, brain(seed=0), prompt_set)
    state = run.go()
    run.assert_valid(state)
    assert state["stop"] == "24 evaluations are used up"
    assert state["evaluations"] == 24
    assert len({row.profile for row in run.candidates()}) >= 24
    assert brain_faults(run.records)["illegal"] == 0


def test_the_result_is_no_worse_than_the_closed_forms(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0))
    state = run.go()
    best = run.bench.fitness(run.bench.candidate(state["best"]).profile, run.settings.fidelity[-1])
    for row in run.candidates():
        if row.proposed_by == "seed":
            assert best.kl <= run.bench.fitness(row.profile, run.settings.fidelity[-1]).kl


def test_every_generation_keeps_its_best_and_stores_the_note(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=3))
    run.go()
    generations = run.bench.memory.recall(Generation, run="run", order="number")
    assert len(generations) >= 3
    for generation in generations:
        assert generation.best == generation.survivors[0]
    assert any(generation.note for generation in generations)


def test_nothing_is_measured_twice_and_every_token_is_charged(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=1))
    state = run.go()
    own = [score for score in run.bench.memory.recall(Score, text="fitness") if score.step > 0]
    passes = PASS_COST * len(run.bench.memory.recall(Slopes))
    assert state["tokens"] == (len(own) + passes) * run.settings.sequence_length
    charged = sum(record.tokens for record in run.records if isinstance(record, Act))
    assert charged == state["tokens"]


def test_the_better_half_reaches_the_last_fidelity_and_the_closed_forms_always_do(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=1))
    run.go()
    calls = [record for record in run.records if isinstance(record, Act) and record.tool == "evaluate"]
    first, second = calls[0].arguments["candidates"], calls[1].arguments["candidates"]
    assert set(run.starting) <= {*first, "c1"}  # the uniform profile was measured before the first turn
    seeds = {row.id for row in run.candidates() if row.proposed_by == "seed"}
    assert seeds <= set(second) <= {*first, "c1"}
    assert len(set(second) - seeds) <= (len(first) + 2) // 2


def test_a_brain_that_always_fails_is_stood_in_for_and_counted(tmp_path):
    run = Search(tmp_path, FailingBrain(), brain_failures=2)
    state = run.go()
    run.assert_valid(state)
    assert state["evaluations"] == 24
    stand_ins = [record for record in run.records if isinstance(record, Think) and record.fallback]
    found = brain_faults(run.records)
    assert found["fallbacks"] == len(stand_ins) > 0
    assert found["failed_turns"] >= 2
    proposers = {row.proposed_by for row in run.candidates()}
    assert "brain" not in proposers and {"seed", "fallback"} < proposers


def test_illegal_replies_are_refused_before_any_tool_sees_them(tmp_path):
    wrong = {"name": "prune_model", "args": {"operator": "initialise", "attention": [9, 9, 9], "mlp": [1, 1, 1]}}
    run = Search(tmp_path, ScriptBrain(replies=[wrong, "no call at all", wrong]), brain_failures=1, samples=2)
    state = run.go()
    run.assert_valid(state)
    assert brain_faults(run.records)["illegal"] == 3
    assert all(row.proposed_by != "brain" for row in run.candidates())


def test_the_same_seed_makes_the_same_candidates(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run = Search(tmp_path / name, UniformBrain(seed=0))
        run.go()
        found.append([(row.id, row.profile, row.detail) for row in run.candidates()])
    assert found[0] == found[1]


def test_a_second_run_starts_from_the_best_of_the_first_and_measures_nothing_again(tmp_path):
    first = Search(tmp_path, UniformBrain(seed=0), run="first")
    best = first.bench.candidate(first.go()["best"]).profile
    second = Search(tmp_path, UniformBrain(seed=0), run="second")
    state = second.go()
    remembered = [row for row in second.candidates() if row.proposed_by == "memory"]
    assert best in {row.profile for row in remembered}
    calls = [record for record in second.records if isinstance(record, Act) and record.tool == "evaluate"]
    measured = {name for call in calls if not call.arguments.get("slopes") for name in call.arguments["candidates"]}
    assert {row.id for row in remembered}.isdisjoint(measured)
    assert state["best"]


def test_the_checkpoints_of_200_candidates_stay_small(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=200, offspring=12, patience=1000)
    state = run.go()
    assert state["evaluations"] == 200
    run.connection.commit()
    assert run.checkpoint.stat().st_size < 5_000_000
    assert "profile" not in str(state) and "attention" not in str(state)


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
    state = run.go()
    run.assert_valid(state)
    assert [row.profile for row in run.candidates()] == [row.profile for row in whole.candidates()]


def test_patience_ends_a_search_that_finds_nothing_better(tmp_path):
    run = Search(tmp_path, FirstBrain(), evaluations=10_000, patience=2)
    state = run.go()
    assert state["stop"] == "2 generations brought nothing better"
    run.assert_valid(state)


def test_a_search_that_an_older_version_stopped_is_refused_in_a_sentence(tmp_path, monkeypatch):
    run = Search(tmp_path, FirstBrain(), arm="uniform")
    run.go()
    monkeypatch.setitem(SearchState.__annotations__, "newer", int)  # what the checkpoint of then does not hold
    with pytest.raises(RunDirectoryError, match="of an older format: its search cannot go on, start anew"):
        run.go()
