"""Two verbs: what is recorded is recalled, once, in its context, whoever asks."""

import math
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Fact, Fitness, Generation, Latency, Score, Sensitivities, TaskScore
from self_pruner.memory.store import Memory

WIDE = Profile((3, 2), (12, 9))
NARROW = Profile((1, 2), (4, 12))
SENSITIVITIES = Sensitivities(WIDE, "passages", 0, ((0.1, 1 / 3, 0.0), (-1e-17, 0.0)), ((2e-9, 0.0),), "r", 1)


def candidate(run="r", id="c1", profile=WIDE, **changes):
    fields = {
        "parents": ("a", "b"),
        "operator": "crossover",
        "proposed_by": "brain",
        "generation": 1,
        "step": 7,
        "call": 0,
        "repaired": 2,
        "params": 123,
        "detail": "layers 0-1",
    }
    return Candidate(run=run, id=id, profile=profile, **(fields | changes))


def score(profile=WIDE, sequence=0, kl=0.5, nll=2.0, text="passages", run="r", step=1, error=None):
    return Score(profile, text, sequence, kl, nll, run, step, error)


def task_score(profile=WIDE, task="boolq", metric="acc", value=0.625, error=None, run="r", data="d", rows=8):
    standard_error = None if value is None else 0.18
    return TaskScore(profile, task, rows, metric, data, value, standard_error, run, 1, error)


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "memory.sqlite", "context", {"model": "tiny"}) as memory:
        yield memory


def test_every_kind_of_fact_is_recalled_as_it_was_recorded(memory):
    facts = [
        candidate(),
        score(),
        score(NARROW, kl=None, nll=None, error="out of memory"),
        task_score(),
        task_score(NARROW, value=None, error="not finite"),
        SENSITIVITIES,
        Latency(WIDE, "cpu 64+8", {"prefill_ms": 1.5, "decode_ms": 0.25}, "r", 3),
        Generation("r", 1, ("c1", "c2"), "c1", "cut late layers", 9),
    ]
    memory.record(*facts)
    for fact in facts:
        assert fact in memory.recall(type(fact))
    assert sum(len(memory.recall(kind)) for kind in get_args(Fact)) == len(facts)


def test_recording_again_changes_nothing(memory):
    timed, closed = Latency(WIDE, "s", {"a": 1.0}, "r", 1), Generation("r", 1, ("c1",), "c1", "", 2)
    facts = [candidate(), score(), SENSITIVITIES, task_score(), timed, closed]
    memory.record(*facts)
    before = [memory.recall(type(fact)) for fact in facts]
    memory.record(*facts)
    assert [memory.recall(type(fact)) for fact in facts] == before


def test_a_decision_told_again_replaces_itself_and_keeps_its_place(memory):
    memory.record(candidate(id="c1"), candidate(id="c2"), Generation("r", 1, ("c1",), "c1", "first", 2))
    memory.record(candidate(id="c1", profile=NARROW), Generation("r", 1, ("c2",), "c2", "second", 2))
    assert [(found.id, found.profile) for found in memory.recall(Candidate)] == [("c1", NARROW), ("c2", WIDE)]
    assert [found.note for found in memory.recall(Generation)] == ["second"]


def test_the_first_measurement_stands(memory):
    memory.record(score(kl=0.5), SENSITIVITIES, task_score(value=0.5), Latency(WIDE, "s", {"a": 1.0}, "r", 1))
    memory.record(score(kl=0.9, run="other"), task_score(value=0.9), Latency(WIDE, "s", {"a": 2.0}, "other", 1))
    memory.record(Sensitivities(WIDE, "passages", 0, (), (), "other", 1))
    assert (memory.recall(Score), memory.recall(Sensitivities)) == ([score(kl=0.5)], [SENSITIVITIES])
    assert (memory.recall(TaskScore), memory.recall(Latency)[0].values) == ([task_score(value=0.5)], {"a": 1.0})


def test_a_failed_score_gives_way_to_one_that_worked_and_never_the_other_way(memory):
    failed = score(kl=None, nll=None, error="out of memory")
    memory.record(failed)
    assert memory.recall(Score) == [failed]
    memory.record(score(kl=0.5))
    memory.record(failed)
    assert memory.recall(Score) == [score(kl=0.5)]


def test_a_failed_task_gives_way_to_one_that_worked_and_never_the_other_way(memory):
    failed = task_score(value=None, error="not finite")
    memory.record(failed)
    memory.record(task_score(value=0.5))
    memory.record(failed)
    assert memory.recall(TaskScore) == [task_score(value=0.5)]


def test_task_scores_of_other_metrics_and_other_rows_are_kept_apart(memory):
    facts = [task_score(), task_score(metric="acc_norm"), task_score(data="e"), task_score(task="piqa")]
    memory.record(*facts, task_score(NARROW))
    assert memory.recall(TaskScore, profile=WIDE) == facts
    assert memory.recall(TaskScore, profile=WIDE, data="d", task="boolq") == facts[:2]


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"value": 1.5}, {"value": None}, {"error": "failed"}])
def test_a_failed_task_cannot_pass_for_a_measurement(wrong):
    with pytest.raises(ValueError, match="error"):
        task_score(**wrong)


@pytest.mark.parametrize("wrong", [{"kl": math.nan}, {"nll": math.inf}, {"kl": None, "nll": None}, {"error": "failed"}])
def test_a_failure_cannot_pass_for_a_measurement(wrong):
    with pytest.raises(ValueError, match="error"):
        score(**wrong)


def test_contexts_do_not_see_each_other(tmp_path):
    path = tmp_path / "memory.sqlite"
    with Memory(path, "one", {}) as one, Memory(path, "two", {}) as two:
        one.record(score(kl=0.1), candidate())
        two.record(score(kl=0.2))
        assert [found.kl for found in one.recall(Score)] == [0.1]
        assert [found.kl for found in two.recall(Score)] == [0.2]
        assert two.recall(Candidate) == two.recall(Fitness, text="none") == []


def test_recall_filters_by_value_by_any_of_several_and_by_missing(memory):
    rows = [score(profile, sequence) for profile in (WIDE, NARROW) for sequence in range(4)]
    rows.append(score(WIDE, 4, nll=None))
    memory.record(*rows)
    assert memory.recall(Score, profile=NARROW) == rows[4:8]
    assert memory.recall(Score, profile=[WIDE, NARROW], sequence=range(1, 3)) == [rows[1], rows[2], rows[5], rows[6]]
    assert memory.recall(Score, nll=None) == rows[8:]
    assert memory.recall(Score, profile=[]) == []


def test_recall_sorts_as_asked_with_ties_in_the_order_of_recording(memory):
    rows = [score(sequence=0, kl=0.3), score(sequence=1, kl=None), score(sequence=2, kl=0.1), score(sequence=3, kl=0.3)]
    memory.record(*rows)
    assert [found.sequence for found in memory.recall(Score)] == [0, 1, 2, 3]
    assert [found.sequence for found in memory.recall(Score, order="kl")] == [2, 0, 3, 1]
    assert [found.sequence for found in memory.recall(Score, order=("-kl", "-sequence"))] == [3, 0, 2, 1]
    assert [found.sequence for found in memory.recall(Score, order="kl", limit=2)] == [2, 0]


def test_an_unknown_field_is_named(memory):
    with pytest.raises(ValueError, match="Score has no field .*'fitness'"):
        memory.recall(Score, fitness=1)
    with pytest.raises(ValueError, match="Score has no field .*'rank'"):
        memory.recall(Score, order="-rank")


def test_fitness_is_the_mean_of_the_first_sequences(memory):
    generator = random.Random(0)
    kl = {profile: [generator.random() for _ in range(6)] for profile in (WIDE, NARROW)}
    rows = [score(profile, i, kl=kl[profile][i], nll=float(i)) for profile in kl for i in range(6)]
    generator.shuffle(rows)
    memory.record(*rows)
    for sequences in range(1, 7):
        best = sorted(kl, key=lambda profile: sum(kl[profile][:sequences]))
        found = memory.recall(Fitness, text="passages", sequences=sequences, order="kl")
        assert [row.profile for row in found] == best
        assert [row.kl for row in found] == pytest.approx(
            [sum(kl[profile][:sequences]) / sequences for profile in best]
        )
        assert [row.nll for row in found] == pytest.approx([(sequences - 1) / 2] * 2)


def test_fitness_needs_every_sequence_without_a_failure(memory):
    memory.record(score(WIDE, 0), score(WIDE, 2))  # sequence 1 is missing
    memory.record(score(NARROW, 0), score(NARROW, 1, kl=None, nll=None, error="NaN"), score(NARROW, 2))
    assert [(row.profile, row.sequences) for row in memory.recall(Fitness)] == [(NARROW, 1), (WIDE, 1)]


def test_fitness_of_texts_is_kept_apart_and_a_missing_kl_is_no_zero(memory):
    memory.record(score(text="a", kl=0.2), score(text="b", kl=None, nll=3.0))
    assert [(row.text, row.kl, row.nll) for row in memory.recall(Fitness)] == [("a", 0.2, 2.0), ("b", None, 3.0)]


def test_facts_are_written_all_or_none(memory):
    memory.record(score())
    connection = memory._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # what a full disk looks like to SQLite
    with pytest.raises(MemoryFileError, match=f"disk is full.*{memory.path}"):
        memory.record(*(score(sequence=i) for i in range(1, 2000)))
    connection.execute("PRAGMA max_page_count = 1000000")
    assert memory.recall(Score) == [score()]
    memory.record(score(sequence=1))
    assert len(memory.recall(Score)) == 2


def test_a_fact_that_cannot_be_stored_takes_the_others_back_with_it(memory):
    with pytest.raises(sqlite3.IntegrityError):
        memory.record(score(), candidate(detail=None))
    assert memory.recall(Score) == []
    memory.record(score())
    assert memory.recall(Score) == [score()]


def test_half_a_surrogate_pair_in_a_note_is_stored_as_a_question_mark(memory):
    memory.record(Generation("r", 1, ("c1",), "c1", "cut \ud83d late", 2))
    assert memory.recall(Generation)[0].note == "cut ? late"


def test_the_memory_serves_several_threads(memory):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: memory.record(score(sequence=i)), range(64)))
    assert sorted(found.sequence for found in memory.recall(Score)) == list(range(64))


def test_what_a_run_decided_is_recalled_as_it_is_in_the_file_whoever_writes_it(memory):
    def recalled():
        found = memory.recall(Candidate, run="r")
        with Memory(memory.path, "context", {}) as other:
            assert found == other.recall(Candidate, run="r")
        return [(row.id, row.detail) for row in found]

    assert recalled() == []
    memory.record(candidate(id="c1"), candidate(id="c2"))
    assert recalled() == [("c1", "layers 0-1"), ("c2", "layers 0-1")]
    memory.record(candidate(id="c1", detail="half \ud83d a pair"), candidate("other", "c9"))
    assert recalled() == [("c1", "half ? a pair"), ("c2", "layers 0-1")]
    with Memory(memory.path, "context", {}) as other:
        other.record(candidate(id="c3", detail="of another connection"))
    assert recalled()[2:] == [("c3", "of another connection")]
    memory.recall(Candidate, run="r").clear()  # a list of one's own
    assert len(recalled()) == 3


def test_a_candidate_that_could_not_be_written_is_not_recalled(memory):
    memory.record(candidate())
    assert len(memory.recall(Candidate, run="r")) == 1
    with pytest.raises(sqlite3.IntegrityError):
        memory.record(candidate(id="c2"), candidate(id="c3", detail=None))
    assert [row.id for row in memory.recall(Candidate, run="r")] == ["c1"]


def test_a_mean_follows_its_scores_until_it_is_complete(memory):
    def mean(sequences):
        return [found.kl for found in memory.recall(Fitness, profile=WIDE, text="passages", sequences=sequences)]

    memory.record(score(kl=0.5), score(sequence=1, kl=None, nll=None, error="out of memory"))
    assert (mean(1), mean(2)) == ([0.5], [])
    memory.record(score(sequence=1, kl=1.5))
    assert (mean(1), mean(2)) == ([0.5], [1.0])
    memory.record(score(kl=9.0))  # measured again: the first stands
    assert (mean(1), mean(2)) == ([0.5], [1.0])


def test_several_profiles_or_runs_may_be_asked_for_at_once(memory):
    memory.record(candidate(), candidate("s", profile=NARROW), score(kl=0.5), score(NARROW, kl=0.25))
    for _ in range(2):
        found = memory.recall(Fitness, profile=[WIDE, NARROW], text="passages", sequences=1, order="kl")
        assert [mean.profile for mean in found] == [NARROW, WIDE]
        assert [row.run for row in memory.recall(Candidate, run=["r", "s"])] == ["r", "s"]
