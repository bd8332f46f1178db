"""The memory's file: what its header says, what is forced to the disk, and what is looked at without being touched."""

import os
import sqlite3
from contextlib import closing

import pytest

import self_pruner.memory.database as database
from self_pruner.memory.database import SCHEMA_VERSION, CorruptMemoryError, check, connect, faults_in_words
from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.partials import owner
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Latency, Score
from self_pruner.memory.store import Memory
from tests.memory.test_migrations import VERSION_1
from tests.processes import open_files_of

PROFILE = Profile((3, 2), (12, 9))
SCORE = Score(PROFILE, "t", 0, 0.5, 2.0, "r", 1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.sqlite"


def foreign(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE score (a)")
        connection.commit()


def newer(path):
    with closing(connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


@pytest.mark.parametrize(
    "damage",
    [
        "run = CAST(x'ff41' AS TEXT)",
        "profile = 'no widths'",
        "profile = '1|'",
        "error = 'and a value too'",
    ],
)
def test_a_row_that_nobody_wrote_is_a_damaged_file_and_said_in_a_sentence(path, damage):
    with closing(Memory(path, "context", {})) as memory:
        memory.record(SCORE)
        memory._connection.execute(f"UPDATE score SET {damage}")
        with pytest.raises(CorruptMemoryError, match="is corrupt; move it away"):
            memory.recall(Score)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE score",
        "DROP VIEW fitness",
        "ALTER TABLE candidate RENAME COLUMN params TO other",
        "DROP TABLE context",
    ],
)
def test_a_file_without_one_of_its_tables_or_columns_is_a_damaged_file(path, damage):
    connect(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(damage)
    with pytest.raises(CorruptMemoryError, match="is corrupt; move it away"):
        connect(path)


def test_a_memory_says_in_its_header_what_it_is(path):
    connect(path).close()
    content = path.read_bytes()
    assert content.startswith(b"SQLite format 3\x00")
    assert content[68:72] == b"SPR0"  # where SQLite keeps the number of the program
    assert int.from_bytes(content[60:64], "big") == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (sqlite3.SQLITE_READONLY, MemoryFileError, "no permission to write the memory file"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, MemoryFileError, "no permission to write the memory file"),
        (sqlite3.SQLITE_PERM, MemoryFileError, "no permission to use the memory file"),
        (sqlite3.SQLITE_CANTOPEN, MemoryFileError, "no permission to open the memory file"),
        (sqlite3.SQLITE_IOERR_WRITE, MemoryFileError, "the disk failed while reading or writing the memory file"),
        (sqlite3.SQLITE_FULL, MemoryFileError, "the disk is full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, MemoryFileError, "another process kept the memory file"),
        (sqlite3.SQLITE_NOTADB, MemoryFileError, "is not a database"),
    ],
)
def test_every_fault_of_the_file_has_a_sentence_that_names_it(path, code, error, sentence):
    complaint = sqlite3.OperationalError("as SQLite puts it")
    complaint.sqlite_errorcode = code
    with pytest.raises(error, match=sentence) as caught, faults_in_words(path):
        raise complaint
    assert str(path) in str(caught.value)


def test_a_mistake_in_our_own_sql_is_not_called_a_fault_of_the_file(path):
    connection = connect(path)
    with pytest.raises(sqlite3.OperationalError, match="no such table"), faults_in_words(path):
        connection.execute("SELECT * FROM absent")
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), faults_in_words(path):
        connection.execute("SELECT 1")


def test_a_context_cannot_be_deleted_from_under_its_scores(path):
    with Memory(path, "context", {}) as memory:
        memory.record(SCORE)
    with closing(connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        connection.execute("DELETE FROM context")


def test_every_record_is_forced_to_the_disk(path):
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_looking_at_a_memory_neither_makes_nor_changes_one(path):
    check(path)
    assert not path.exists()
    connect(path).close()
    before = path.read_bytes()
    check(path)
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before


@pytest.mark.parametrize(("make", "error"), [(foreign, MemoryFileError), (newer, MemoryFileError)])
def test_looking_at_what_is_no_memory_of_this_version_says_so(path, make, error):
    make(path)
    before = path.read_bytes()
    with pytest.raises(error):
        check(path)
    assert path.read_bytes() == before


def test_an_older_memory_passes_a_look_and_stays_old(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
    check(path)
    assert int.from_bytes(path.read_bytes()[60:64], "big") == 1


def test_the_header_tells_the_new_version_while_the_memory_is_still_open(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.executescript(VERSION_1)
    with closing(connect(path)):
        assert int.from_bytes(path.read_bytes()[60:64], "big") == SCHEMA_VERSION


def test_what_a_dead_process_of_our_number_left_is_no_obstacle(path):
    rest = path.with_name(f".{path.name}.{owner(os.getpid())}.partial")
    rest.write_bytes(b"half a memory")
    with Memory(path, "context", {}) as memory:
        memory.record(SCORE)
    assert list(path.parent.iterdir()) == [path]


def test_a_memory_of_today_opens_while_another_process_writes(path, monkeypatch):
    connect(path).close()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM score").fetchone() == (0,)
        other.execute("ROLLBACK")


@pytest.mark.parametrize("make", [foreign, newer])
def test_a_refused_file_is_not_kept_open(path, make):
    make(path)
    with pytest.raises((MemoryFileError, MemoryFileError)):
        connect(path)
    assert open_files_of(path.parent) == []


def test_a_memory_that_does_not_open_and_one_that_is_closed_leave_no_file_open(path):
    with pytest.raises(TypeError):
        Memory(path, "context", {"not JSON": object()})
    assert open_files_of(path.parent) == []
    with Memory(path, "context", {}):
        assert open_files_of(path.parent) != []
    assert open_files_of(path.parent) == []


def test_a_time_that_is_no_number_is_refused_and_nothing_is_written(path):
    with Memory(path, "context", {}) as memory:
        with pytest.raises(ValueError, match="JSON"):
            memory.record(SCORE, Latency(PROFILE, "s", {"decode_ms": float("nan")}, "r", 1))
        assert memory.recall(Score) == memory.recall(Latency) == []
