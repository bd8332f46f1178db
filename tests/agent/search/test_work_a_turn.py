"""What a turn asks of the memory does not grow with what the run has made so far."""

from collections import Counter

from self_pruner.agent.brain.scripted import UniformBrain
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
            rows[state["generation"]] += rows["here"]
            turns[state["generation"]] += 1

    monkeypatch.setattr(run.bench.memory, "_select", counted)
    monkeypatch.setattr(Thinker, "__call__", turn)
    state = run.go()
    assert state["generation"] >= 12 and len(run.candidates()) >= 80
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
