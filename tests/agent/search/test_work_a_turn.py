"""What a turn asks of the memory does not grow with what the run has made so far."""

from collections import Counter

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.think import Thinker
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from tests.agent.search.test_search import Search


def invented(walk, profiles, sequences, progress=None):
    """Scores that follow from the widths alone: these tests are about what is read, not about what is measured."""
    return [
        Measurement(profile, sequences, kl, kl, len(sequences), 0.0)
        for profile in dict.fromkeys(profiles)
        for kl in [tuple(0.1 + (hash(profile) + index) % 997 / 1000 for index in sequences)]
    ]


def test_a_turn_reads_as_much_of_the_memory_late_in_a_run_as_early(tmp_path, monkeypatch):
    monkeypatch.setattr(PopulationWalk, "measure", invented)
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=90, offspring=6, patience=1000)
    rows, turns = Counter(), Counter()
    select, think = run.bench.memory._select, Thinker.__call__

    def counted(*words):
        found = select(*words)
        rows["here"] += 1 + len(found)  # a query counts, and every row that it brings
        return found

    def turn(thinker, state):
        rows["here"] = 0
        try:
            return think(thinker, state)
        finally:
            rows[state.generation] += rows["here"]
            turns[state.generation] += 1

    monkeypatch.setattr(run.bench.memory, "_select", counted)
    monkeypatch.setattr(Thinker, "__call__", turn)
    state = run.go()
    assert state.generation >= 12 and len(run.candidates()) >= 80
    early, late = (
        sum(rows[number] for number in generations) / sum(turns[number] for number in generations)
        for generations in (range(2, 5), range(9, 12))
    )
    assert late <= 1.5 * early, (rows, turns)


def test_what_is_read_of_a_run_is_what_is_in_the_file(tmp_path):
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=12)
    run.go()
    memory = run.bench.memory
    for kind in (Candidate, Generation):
        assert memory.recall(kind, run="run") == memory.recall(kind, run="run", order=()) != []
        assert memory.recall(kind, run="run") == memory._select(kind, (), None, {"run": "run"})


def test_a_turn_asks_the_memory_for_each_kind_of_fact_once(tmp_path, monkeypatch):
    monkeypatch.setattr(PopulationWalk, "measure", invented)
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=40)
    asked, turns = Counter(), []
    recall, think = run.bench.memory.recall, Thinker.__call__

    def counted(kind, **words):
        asked[kind.__name__] += 1
        return recall(kind, **words)

    def turn(thinker, state):
        asked.clear()
        try:
            return think(thinker, state)
        finally:
            turns.append(Counter(asked))

    monkeypatch.setattr(run.bench.memory, "recall", counted)
    monkeypatch.setattr(Thinker, "__call__", turn)
    run.go()
    assert len(turns) > 20 and {
        "Candidate",
        "Generation",
        "Fitness",
        "Score",
        "Sensitivities",
        "Latency",
    } <= set().union(*turns)
    assert all(times == 1 for one in turns for times in one.values()), turns


def test_what_a_turn_knows_is_what_the_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(PopulationWalk, "measure", invented)
    run = Search(tmp_path, UniformBrain(seed=0), evaluations=40)
    think = Thinker.__call__

    def turn(thinker, state):
        update = think(thinker, state)
        kept, anew = thinker.history, SearchHistory(run.bench).read(state.centre)
        assert (kept.candidates, kept.generations, kept.latencies) == (
            anew.candidates,
            anew.generations,
            anew.latencies,
        )
        for row in kept.candidates.values():
            assert kept.failure(row.profile) == run.bench.failure(row.profile)
            for tokens in run.bench.fidelity:
                assert kept.fitness(row.profile, tokens) == run.bench.fitness(row.profile, tokens)
        for start in {kept.profile(row.parents[0]) for row in kept.steps()} if state.centre else ():
            assert kept.sensitivities(start) == run.bench.sensitivities(start)
        return update

    monkeypatch.setattr(Thinker, "__call__", turn)
    assert run.go().generation > 3
