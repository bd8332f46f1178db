"""A memory file that is not ours, damaged, too new or out of reach: one sentence, and the file is left as it was."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import self_pruner.memory.database as database
from self_pruner.memory.database import CorruptMemoryError
from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Fitness, Lesson, Score, Sensitivities, TaskScore
from self_pruner.memory.store import Memory

ROOT = Path(__file__).parents[2]
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
OLD = [(1, VERSION_1), (2, VERSION_2), (3, VERSION_3), (4, VERSION_4)]


@pytest.fixture(params=OLD, ids=["1", "2", "3", "4"])
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
TASK_SCORE = TaskScore(SCORED, "boolq", 8, "acc", "d", 0.5, 0.1, "r", 1)


def open_memory(path):
    return Memory(path, "context", {"model": "tiny"})


def filled(path, rows=400):
    with open_memory(path) as memory:
        memory.record(*(Score(Profile((1,) * 30, (i,) * 30), "t", 0, 1.0, 1.0, "r", 1) for i in range(rows)))
    return path


def fails_untouched(path, error, match):
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(error, match=match) as caught:
        open_memory(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize("content", [b"x", b"id,score\n1,2\n", b"\x00" * 5000, b"SQLite format 3\x00", b""])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    fails_untouched(path, MemoryFileError, "is not|corrupt")


def test_the_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE score (a)")
        connection.commit()
    fails_untouched(path, MemoryFileError, "is not a memory of Self-Pruner")


def test_the_unfinished_business_of_another_program_is_left_to_it(tmp_path):
    live, path = tmp_path / "live" / "other.sqlite", tmp_path / "copy" / "other.sqlite"
    live.parent.mkdir()
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE score (a)")
        connection.commit()
        shutil.copytree(live.parent, path.parent)  # as a killed program leaves it: with a log not yet written back
    (path.parent / "other.sqlite-shm").unlink()
    kept = {name: (path.parent / name).read_bytes() for name in ("other.sqlite", "other.sqlite-wal")}
    with pytest.raises(MemoryFileError):
        open_memory(path)
    assert {name: (path.parent / name).read_bytes() for name in kept} == kept


def test_a_memory_of_a_newer_version_is_refused(tmp_path):
    path = filled(tmp_path / "memory.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
    fails_untouched(path, MemoryFileError, f"format {database.SCHEMA_VERSION + 1}.*update Self-Pruner")


def test_a_truncated_memory_is_refused(tmp_path):
    path = filled(tmp_path / "memory.sqlite")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails_untouched(path, CorruptMemoryError, "corrupt; move it away or name another with --memory")


def test_a_memory_with_overwritten_pages_is_refused(tmp_path):
    path = filled(tmp_path / "memory.sqlite")
    data = bytearray(path.read_bytes())
    data[4096 * 3 : -4096] = b"\xa5" * len(data[4096 * 3 : -4096])
    path.write_bytes(data)
    fails_untouched(path, CorruptMemoryError, "corrupt")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(MemoryFileError, match="is not a file"):
        open_memory(tmp_path)


def test_a_path_below_a_regular_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(MemoryFileError, match=r"cannot make the memory file .*file is not a folder"):
        open_memory(tmp_path / "file" / "memory.sqlite")
    with pytest.raises(MemoryFileError, match=r"cannot make the memory file .*: Not a directory"):
        open_memory(tmp_path / "file" / "deeper" / "memory.sqlite")
    assert (tmp_path / "file").read_text() == "a file"


def test_a_folder_that_may_not_be_written_is_refused(unprivileged):
    unprivileged.chmod(0o555)
    with pytest.raises(MemoryFileError, match="permission"):
        open_memory(unprivileged / "memory.sqlite")
    assert list(unprivileged.iterdir()) == []


def test_a_memory_that_may_not_be_written_is_refused_at_the_door(unprivileged):
    path = filled(unprivileged / "memory.sqlite")
    path.chmod(0o444)
    fails_untouched(path, MemoryFileError, "no permission to read and write")


def test_a_memory_that_may_not_be_read_is_refused(unprivileged):
    path = filled(unprivileged / "memory.sqlite")
    path.chmod(0)
    with pytest.raises(MemoryFileError, match="no permission"):
        open_memory(path)


def test_a_memory_kept_locked_is_named_after_the_wait(tmp_path, monkeypatch):
    path = filled(tmp_path / "memory.sqlite")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MemoryFileError, match="another process"):
            open_memory(path)
        other.execute("ROLLBACK")
    open_memory(path).close()


def test_a_file_system_without_links_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(MemoryFileError, match="cannot make the memory file .*Operation not permitted"):
        open_memory(tmp_path / "memory.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [4096, 20_000, 40_000])
def test_a_disk_that_is_full_before_the_memory_is_made_leaves_nothing_behind(tmp_path, room):
    code = (
        "import resource, sys; from pathlib import Path; from self_pruner.memory.store import Memory; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY)); "
        "Memory(Path(sys.argv[1]), 'context', {})"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "memory.sqlite")]
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert "MemoryFileError: the disk failed" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_new_memory_is_made_with_its_folder_and_without_remains(tmp_path):
    path = tmp_path / "runs" / "deep" / "memory.sqlite"
    open_memory(path).close()
    assert list(path.parent.iterdir()) == [path]


def test_strange_file_names_are_names(tmp_path):
    path = tmp_path / "a ?mode=memory#%41 é.sqlite"
    filled(path, rows=3)
    with open_memory(path) as memory:
        assert len(memory.recall(Score)) == 3


def header_version(path):
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        return {name: sql for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")}


def test_a_memory_of_an_earlier_version_keeps_what_it_holds_and_takes_what_is_new(old, tmp_path):
    with open_memory(old) as memory:
        assert [(found.kl, found.nll) for found in memory.recall(Fitness, profile=SCORED)] == [(0.5, 2.0)]
        memory.record(TASK_SCORE, SENSITIVITIES, LESSON)
    with open_memory(old) as memory:
        assert memory.recall(TaskScore) == [TASK_SCORE]
        assert SENSITIVITIES in memory.recall(Sensitivities)
        assert memory.recall(Lesson) == [LESSON]
        assert len(memory.recall(Score)) == 1
    assert header_version(old) == database.SCHEMA_VERSION
    open_memory(tmp_path / "new.sqlite").close()
    assert tables(old) == tables(tmp_path / "new.sqlite")  # brought up to date is as good as new


@pytest.mark.parametrize("old", [(3, VERSION_3)], ids=["3"], indirect=True)
def test_sensitivities_under_their_earlier_name_are_found_under_the_new_one(old):
    with open_memory(old) as memory:
        assert memory.recall(Sensitivities) == [replace(SENSITIVITIES, sequence=1, run="earlier", step=2)]


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
    steps = {**database.MIGRATIONS, 4: (*database.MIGRATIONS[4], "CREATE TABLE score (a)")}  # the last statement fails
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", steps)
        with pytest.raises(sqlite3.OperationalError):
            open_memory(old)
    assert tables(old) == before
    with open_memory(old) as memory:
        assert len(memory.recall(Score)) == 1 and memory.recall(TaskScore) == []
        assert len(memory.recall(Sensitivities)) == bool({"slopes", "sensitivities"} & before.keys())


def test_a_version_that_only_the_log_knows_is_refused_too(tmp_path):
    live, path = tmp_path / "live" / "memory.sqlite", tmp_path / "copy" / "memory.sqlite"
    filled(live, rows=3)
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
        shutil.copytree(live.parent, path.parent)  # as a killed program leaves it
    assert header_version(path) == database.SCHEMA_VERSION
    with pytest.raises(MemoryFileError, match="update Self-Pruner"):
        open_memory(path)


def test_a_column_whose_name_is_no_text_is_a_damaged_file(tmp_path):
    path = filled(tmp_path / "memory.sqlite")
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.execute("PRAGMA journal_mode = DELETE")
    path.write_bytes(path.read_bytes().replace(b"proposed_by TEXT", b"proposed\xff\xfe TEXT"))
    with pytest.raises(MemoryFileError, match="corrupt"):
        open_memory(path)
