"""A memory file that is not ours, damaged, too new or out of reach: one sentence, and the file is left as it was."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import self_pruner.memory.database as database
from self_pruner.memory.database import CorruptMemoryError
from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Score
from self_pruner.memory.store import Memory

ROOT = Path(__file__).parents[2]


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
