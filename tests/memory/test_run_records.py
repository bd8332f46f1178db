"""A run's own file: all that the run knows, whatever becomes of the memory, and the memory from it again."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

import self_pruner.memory.run_records as run_records
from self_pruner.memory.database import CorruptMemoryError
from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Fact, Fitness, Generation, Latency, Score, Sensitivities, TaskScore
from self_pruner.memory.run_records import RunRecords
from self_pruner.memory.store import Memory

ROOT = Path(__file__).parents[2]
OWN, OTHER, FOREIGN = Profile((1,), (2,)), Profile((2,), (1,)), Profile((3,), (3,))


def candidate(run="r", number=1, profile=OWN):
    return Candidate(run, f"c{number}", profile, (), "initialise", "seed", 0, 0, 0, 0, 9, "uniform")


def score(profile=OWN, sequence=0, kl=0.5, run="r", error=None):
    return Score(profile, "t", sequence, None if error else kl, None if error else 2.0, run, 1, error)


def facts(run="r"):
    """One fact of every kind."""
    return [
        candidate(run),
        score(run=run),
        Sensitivities(OWN, "t", 0, ((0.1, 0.0),), ((0.3, -0.2, 0.0),), run, 1),
        TaskScore(OWN, "boolq", 8, "acc", "d", 0.5, 0.1, run, 1),
        Latency(OWN, f"cpu, run {run}", {"a": 1.0}, run, 1),
        Generation(run, 1, ("c1",), "c1", "note", 1),
    ]


def everything(memory):
    return {kind: memory.recall(kind) for kind in get_args(Fact)}


@pytest.fixture
def place(tmp_path):
    """Where the memory and the file of the run `r` are."""
    (tmp_path / "run").mkdir()
    return tmp_path / "memory.sqlite", tmp_path / "run" / "records.sqlite"


def opened(place, run="r", context="context"):
    memory, records = place
    return RunRecords(records, run, context, {"model": "tiny"}, Memory(memory, context, {}, durable=False))


def shared(place, context="context"):
    return Memory(place[0], context, {})


def test_what_a_run_records_is_in_its_own_file_and_in_the_memory(place):
    with opened(place) as records:
        records.record(*facts())
    with Memory(place[1], "context", {}) as own, shared(place) as memory:
        assert everything(own) == everything(memory)
        assert sum(map(len, everything(own).values())) == len(facts())


def test_a_run_knows_all_of_its_own_without_the_memory_and_fills_a_new_one(place):
    with opened(place) as records, closing(records.sibling("recalibrated", {})) as other:
        records.record(*facts())
        other.record(score(kl=0.25))
    place[0].unlink()
    with RunRecords(place[1], "r", "context", {}, None) as records:
        known = everything(records)
        assert known[Candidate] == [candidate()] and known[Score] == [score()]
    with opened(place) as records:
        assert records.restored == len(facts()) + 1
        assert everything(records) == known
    with shared(place) as memory, shared(place, "recalibrated") as other:
        assert everything(memory) == known
        assert other.recall(Score) == [score(kl=0.25)]
    with opened(place) as records:
        assert records.restored == records.filled == 0


def test_what_another_run_measured_is_used_and_then_the_runs_own(place):
    with shared(place) as memory:
        memory.record(candidate("other"), score(kl=0.125, run="other"), score(FOREIGN, run="other"))
    with opened(place) as records:
        assert records.filled == 0
        assert [found.kl for found in records.recall(Fitness, profile=OWN, text="t", sequences=1)] == [0.125]
        assert records.recall(Candidate, run="r") == []
    with RunRecords(place[1], "r", "context", {}, None) as alone:
        assert alone.recall(Score) == [score(kl=0.125, run="other")]  # and not what was of no use to it


def test_a_measurement_of_the_runs_own_stands_against_one_of_another_run(place):
    with opened(place) as records:
        records.record(score(kl=0.5))
    place[0].unlink()
    with shared(place) as memory:
        memory.record(score(kl=0.125, run="other"), score(sequence=1, kl=0.25, run="other"))
    with opened(place) as records:
        assert [found.kl for found in records.recall(Score, profile=OWN, order="sequence")] == [0.5, 0.25]
    with shared(place) as memory:  # where the first stands as well
        assert [found.kl for found in memory.recall(Score, profile=OWN, order="sequence")] == [0.125, 0.25]


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_goes_on_sees_nothing_that_others_measured_since_it_asked(place, begun):
    def known(records):
        scores = records.recall(Score, profile=[OWN, OTHER], order="sequence")
        means = records.recall(Fitness, profile=OWN, text="t", sequences=2)
        return [found.sequence for found in scores], len(means)

    with shared(place) as memory:
        memory.record(score(run="other"))
    if begun:
        with opened(place) as records:
            records.record(candidate(profile=OWN), candidate(number=2, profile=OTHER))
            assert known(records) == ([0], 0)
    with shared(place) as memory:
        memory.record(score(sequence=1, run="other"), score(OTHER, sequence=2, run="other"))
    with opened(place) as records:  # as after a kill
        assert known(records) == (([0], 0) if begun else ([0, 1, 2], 1))
        other = records.recall(Score, profile=FOREIGN)
    assert other == []


def test_a_failure_of_the_run_itself_is_not_hidden_by_what_another_run_measured(place):
    with opened(place) as records:
        records.record(score(error="not finite"))
    place[0].unlink()
    with shared(place) as memory:
        memory.record(score(run="other"))
    with opened(place) as records:
        assert [found.error for found in records.recall(Score, profile=OWN)] == ["not finite"]


def test_a_run_from_before_there_was_such_a_file_gets_one_from_the_memory(place):
    with shared(place) as memory, shared(place, "recalibrated") as recalibrated:
        memory.record(*facts(), *facts("other"), score(sequence=1, run="other"), score(FOREIGN, run="other"))
        memory.record(*(candidate(number=number, profile=OTHER) for number in range(20, 1, -1)))
        recalibrated.record(score(kl=0.25), score(FOREIGN, run="other"))
        decided = memory.recall(Candidate, run="r")
    with opened(place) as records:
        assert records.filled == len(facts()) + 19 + 1 + 1  # its own, a measurement of its candidate, the recalibrated
    place[0].unlink()
    with RunRecords(place[1], "r", "context", {}, None) as records:
        assert records.recall(Candidate, run="r") == decided  # in the order in which they were made
        assert records.recall(Candidate) == decided
        assert records.recall(Generation) == [facts()[-1]]
        assert [(found.sequence, found.run) for found in records.recall(Score)] == [(0, "r"), (1, "other")]


def test_filling_the_file_of_an_old_run_is_all_or_nothing(place, monkeypatch):
    with shared(place) as memory:
        memory.record(*facts())
    with monkeypatch.context() as patch:
        patch.setitem(run_records._OF_RUN, Generation, "nothing = 1")  # the last one fails
        with pytest.raises(sqlite3.OperationalError, match="nothing"):
            opened(place)
    with opened(place) as records:
        assert records.filled == len(facts())


def test_of_a_full_memory_nothing_is_lost(place, monkeypatch):
    def full(*facts):
        raise MemoryFileError("the disk is full")

    with opened(place) as records:
        monkeypatch.setattr(records.shared, "record", full)
        with pytest.raises(MemoryFileError):
            records.record(score())
    with opened(place) as records:
        assert records.restored == 1
        assert records.recall(Score) == records.shared.recall(Score) == [score()]


def test_a_file_that_is_damaged_says_what_to_do(place):
    with opened(place) as records:
        records.record(*(score(Profile((1,) * 30, (number,) * 30)) for number in range(400)))
    place[1].write_bytes(place[1].read_bytes()[: place[1].stat().st_size // 2])
    with pytest.raises(CorruptMemoryError, match=r"records.sqlite is corrupt: move it away, and the run has what"):
        opened(place)


WRITER = """
import sys
from pathlib import Path
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Score
from self_pruner.memory.run_records import RunRecords
from self_pruner.memory.store import Memory
memory, records, run, count = sys.argv[1:]
shared = Memory(Path(memory), "context", {}, durable=False)
with RunRecords(Path(records), run, "context", {}, shared) as known:
    for number in range(int(count)):
        known.record(Score(Profile((1,), (number,)), "t", 0, float(run), 1.0, run, 1))
        print(number, flush=True)
"""


def writer(memory, records, run, count):
    words = [sys.executable, "-c", WRITER, memory, records, run, str(count)]
    return subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def test_a_kill_at_any_moment_leaves_nothing_in_the_memory_that_the_run_has_not(place):
    for told in (3, 40):
        process = writer(*place, "1", 10**6)
        for _ in range(told):
            process.stdout.readline()
        process.kill()
        process.communicate(timeout=60)
        with Memory(place[1], "context", {}) as own, shared(place) as memory:
            kept = own.recall(Score)
            assert len(kept) >= told
            assert set(memory.recall(Score)) <= set(kept)
        with opened(place, run="1") as records:
            assert records.shared.recall(Score) == records.recall(Score) == kept


def test_two_runs_write_to_one_memory_at_once_and_each_keeps_what_it_measured(tmp_path):
    memory = tmp_path / "memory.sqlite"
    processes = [writer(memory, tmp_path / f"{run}.sqlite", run, 60) for run in ("1", "2")]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    with Memory(memory, "context", {}) as all_runs:
        first = {found.profile: found.kl for found in all_runs.recall(Score)}
    assert len(first) == 60
    for run in ("1", "2"):
        with Memory(tmp_path / f"{run}.sqlite", "context", {}) as own:
            assert [(found.kl, found.run) for found in own.recall(Score)] == [(float(run), run)] * 60
