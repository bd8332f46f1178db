"""A memory of an earlier version: it keeps what it holds, and is as good as a new one afterwards."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

import self_pruner.memory.database as database
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Fitness, Lesson, PromptUse, Score, Sensitivities, TaskScore
from tests.memory.test_database import header_version, open_memory

VERSION_1 = """
CREATE TABLE context (context TEXT PRIMARY KEY, description TEXT NOT NULL) STRICT;
CREATE TABLE candidate (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, id TEXT NOT NULL, profile TEXT NOT NULL,
    parents TEXT NOT NULL, operator TEXT NOT NULL, proposed_by TEXT NOT NULL, generation INTEGER NOT NULL,
    step INTEGER NOT NULL, call INTEGER NOT NULL, repaired INTEGER NOT NULL, params INTEGER NOT NULL,
    detail TEXT NOT NULL, UNIQUE (context, run, id)
) STRICT;
CREATE INDEX candidate_profile ON candidate (context, profile);
CREATE TABLE score (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, text TEXT NOT NULL, sequence INTEGER NOT NULL,
    kl REAL, nll REAL, run TEXT NOT NULL, step INTEGER NOT NULL, error TEXT, UNIQUE (context, text, profile, sequence)
) STRICT;
CREATE TABLE latency (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, setting TEXT NOT NULL, "values" TEXT NOT NULL,
    run TEXT NOT NULL, step INTEGER NOT NULL, UNIQUE (context, profile, setting)
) STRICT;
CREATE TABLE generation (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, number INTEGER NOT NULL, survivors TEXT NOT NULL,
    best TEXT NOT NULL, note TEXT NOT NULL, step INTEGER NOT NULL, UNIQUE (context, run, number)
) STRICT;
CREATE VIEW fitness AS
    SELECT context, profile, text, sequences, kl, nll FROM (
        SELECT context, profile, text, sequence + 1 AS sequences, error,
            CASE WHEN count(kl) OVER so_far = sequence + 1 THEN avg(kl) OVER so_far END AS kl,
            CASE WHEN count(nll) OVER so_far = sequence + 1 THEN avg(nll) OVER so_far END AS nll,
            count(*) OVER so_far AS present, count(error) OVER so_far AS failed
        FROM score WINDOW so_far AS (PARTITION BY context, text, profile ORDER BY sequence)
    ) WHERE present = sequences AND failed = 0;
INSERT INTO context VALUES ('context', '{}');
INSERT INTO score VALUES ('context', '1|2', 't', 0, 0.5, 2.0, 'r', 1, NULL);
"""

VERSION_2 = (
    VERSION_1
    + """
CREATE TABLE task_score (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, task TEXT NOT NULL, rows INTEGER NOT NULL,
    metric TEXT NOT NULL, data TEXT NOT NULL, value REAL, standard_error REAL, run TEXT NOT NULL, step INTEGER NOT NULL,
    error TEXT, UNIQUE (context, profile, task, metric, data)
) STRICT;
"""
)


VERSION_3 = (
    VERSION_2
    + """
CREATE TABLE slopes (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, text TEXT NOT NULL, sequence INTEGER NOT NULL,
    attention TEXT NOT NULL, mlp TEXT NOT NULL, run TEXT NOT NULL, step INTEGER NOT NULL,
    UNIQUE (context, profile, text, sequence)
) STRICT;
INSERT INTO slopes VALUES ('context', '1|2', 't', 1, '[[0.1, 0.0]]', '[[0.3, -0.2, 0.0]]', 'earlier', 2);
"""
)


VERSION_4 = VERSION_3.replace("slopes", "sensitivities")
VERSION_5 = (
    VERSION_4
    + """
CREATE TABLE lesson (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, generation INTEGER NOT NULL, number INTEGER NOT NULL,
    take TEXT NOT NULL, give TEXT NOT NULL, amount TEXT NOT NULL, expected TEXT NOT NULL, verdict TEXT NOT NULL,
    change REAL NOT NULL, error REAL NOT NULL, evidence TEXT NOT NULL, params INTEGER NOT NULL, step INTEGER NOT NULL,
    UNIQUE (context, run, generation, number)
) STRICT;
"""
)
VERSION_6 = (
    VERSION_5
    + """
CREATE TABLE prompt_use (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, digest TEXT NOT NULL, name TEXT NOT NULL,
    brain TEXT NOT NULL, turns INTEGER NOT NULL, replies INTEGER NOT NULL, illegal INTEGER NOT NULL,
    failed INTEGER NOT NULL, tokens INTEGER NOT NULL, made INTEGER NOT NULL, repaired INTEGER NOT NULL,
    compared INTEGER NOT NULL, improved INTEGER NOT NULL, chance_compared INTEGER NOT NULL,
    chance_improved INTEGER NOT NULL, step INTEGER NOT NULL, UNIQUE (context, run)
) STRICT;
"""
)
TAUGHT_6 = (
    VERSION_6
    + """
INSERT INTO lesson VALUES (
    'context', 'earlier', 2, 0, 'mlp 4-7', 'attention 0-3', 'some', 'better', 'held', -0.01, 0.004, '["c7", "c8"]',
    1000, 9
);
"""
)
OLD = [(1, VERSION_1), (2, VERSION_2), (3, VERSION_3), (4, VERSION_4), (5, VERSION_5), (6, VERSION_6)]


@pytest.fixture(params=OLD, ids=["1", "2", "3", "4", "5", "6"])
def old(tmp_path, request):
    """A memory as an earlier version wrote it, with one score."""
    version, schema = request.param
    path = tmp_path / "memory.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.executescript(schema)
    return path


SCORED = Profile((1,), (2,))
SENSITIVITIES = Sensitivities(SCORED, "t", 0, ((0.1, 0.0),), ((0.3, -0.2, 0.0),), "r", 1)
LESSON = Lesson(
    *("r", 2, 0, "mlp 4-7", "attention 0-3", "some", "better"), *("held", -0.01, 0.004, ("c7", "c8"), 1000, 9)
)
PROMPT_USE = PromptUse("r", "0123456789ab", "mine", "tiny", *range(1, 12), 9)
TASK_SCORE = TaskScore(SCORED, "boolq", 8, "acc", "d", 0.5, 0.1, "r", 1)


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        return {name: sql for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")}


def test_a_memory_of_an_earlier_version_keeps_what_it_holds_and_takes_what_is_new(old, tmp_path):
    with open_memory(old) as memory:
        assert [(found.kl, found.nll) for found in memory.recall(Fitness, profile=SCORED)] == [(0.5, 2.0)]
        memory.record(TASK_SCORE, SENSITIVITIES, LESSON, PROMPT_USE)
    with open_memory(old) as memory:
        assert memory.recall(TaskScore) == [TASK_SCORE]
        assert SENSITIVITIES in memory.recall(Sensitivities)
        assert memory.recall(Lesson) == [LESSON] and memory.recall(PromptUse) == [PROMPT_USE]
        assert len(memory.recall(Score)) == 1
    assert header_version(old) == database.SCHEMA_VERSION
    open_memory(tmp_path / "new.sqlite").close()
    assert tables(old) == tables(tmp_path / "new.sqlite")  # brought up to date is as good as new


@pytest.mark.parametrize("old", [(3, VERSION_3)], ids=["3"], indirect=True)
def test_sensitivities_under_their_earlier_name_are_found_under_the_new_one(old):
    with open_memory(old) as memory:
        assert memory.recall(Sensitivities) == [replace(SENSITIVITIES, sequence=1, run="earlier", step=2)]


@pytest.mark.parametrize("old", [(6, TAUGHT_6)], ids=["6"], indirect=True)
def test_lessons_of_before_other_models_had_any_are_of_the_model_itself(old):
    with open_memory(old) as memory:
        assert memory.recall(Lesson) == [replace(LESSON, run="earlier")] and LESSON.model == ""


def test_two_processes_may_bring_a_memory_up_to_date_while_another_reads_it(old):
    with closing(sqlite3.connect(old, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM score").fetchall()  # holds the log where it is
        with open_memory(old) as first, open_memory(old) as second:
            first.record(TASK_SCORE)
            assert second.recall(TaskScore) == [TASK_SCORE]
        reader.execute("COMMIT")


def test_bringing_a_memory_up_to_date_is_all_or_nothing(old, monkeypatch):
    before = tables(old)
    last = max(database.MIGRATIONS)
    steps = {
        **database.MIGRATIONS,
        last: (*database.MIGRATIONS[last], "CREATE TABLE score (a)"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", steps)
        with pytest.raises(sqlite3.OperationalError):
            open_memory(old)
    assert tables(old) == before
    with open_memory(old) as memory:
        assert len(memory.recall(Score)) == 1 and memory.recall(TaskScore) == []
        assert len(memory.recall(Sensitivities)) == bool({"slopes", "sensitivities"} & before.keys())
