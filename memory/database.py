"""The file behind the memory: its schema, how it is opened without harm, and what can go wrong with it in words.

A file is identified by its header before anything may write to it, so a file that is not ours, is damaged or comes from
a newer version is left as it was. A new file is built aside and linked into place, so two
processes that start at once agree on one file and nobody ever sees half of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from memory.errors import SelfPrunerError

APPLICATION_ID = 0x53505230  # "SPR0", in the header of every memory file
SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0  # how long a writer waits for the other process

SCHEMA = """
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
"""


class MemoryFileError(SelfPrunerError):
    """The memory file cannot be used; the sentence says why and what to do."""


class NotAMemoryError(MemoryFileError):
    """The file is something else."""


class CorruptMemoryError(MemoryFileError):
    """The file is damaged."""


class NewerMemoryError(MemoryFileError):
    """The file was written by a newer version."""


class MemoryAccessError(MemoryFileError):
    """The file cannot be opened, read or written here."""


class MemoryFullError(MemoryFileError):
    """The disk has no room for what should be remembered."""


class MemoryBusyError(MemoryFileError):
    """Another process kept the file locked for too long."""


_CORRUPT = "the memory file {path} is corrupt; move it away or name another with --memory"
_FAULTS: dict[int, tuple[type[MemoryFileError], str]] = {
    sqlite3.SQLITE_NOTADB: (NotAMemoryError, "the memory file {path} is not a database; name another with --memory"),
    sqlite3.SQLITE_CORRUPT: (CorruptMemoryError, _CORRUPT),
    sqlite3.SQLITE_CANTOPEN: (MemoryAccessError, "no permission to open the memory file {path} or to write beside it"),
    sqlite3.SQLITE_READONLY: (MemoryAccessError, "no permission to write the memory file {path}"),
    sqlite3.SQLITE_PERM: (MemoryAccessError, "no permission to use the memory file {path}"),
    sqlite3.SQLITE_IOERR: (MemoryAccessError, "the disk failed while reading or writing the memory file {path}"),
    sqlite3.SQLITE_FULL: (MemoryFullError, "the disk is full: nothing more can be written to the memory file {path}"),
    sqlite3.SQLITE_BUSY: (
        MemoryBusyError,
        "another process kept the memory file {path} locked for {seconds:.0f} seconds",
    ),
}


@contextmanager
def faults_in_words(path: Path) -> Iterator[None]:
    """Raises SQLite's complaints about the file as a `MemoryFileError`; mistakes in our own SQL pass through."""
    try:
        yield
    except sqlite3.Error as error:
        # the low byte is the primary code, the rest a detail; an error of the Python module itself has no code
        fault = _FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if fault is None:
            raise
        raise fault[0](fault[1].format(path=path, seconds=BUSY_SECONDS)) from error


def connect(path: Path) -> sqlite3.Connection:
    """Opens the memory at `path`, making it where there is none.

    Returns:
        A connection in autocommit mode that several threads may use in turn.

    Raises:
        MemoryFileError: the file is not a memory, is damaged, too new, or cannot be read or written.
    """
    with faults_in_words(path):
        try:
            if not path.exists():
                _create(path)
        except OSError as error:
            raise MemoryAccessError(f"cannot make the memory file {path}: {error.strerror}") from error
        _identify(path)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise CorruptMemoryError(_CORRUPT.format(path=path))
            connection.execute("PRAGMA foreign_keys = ON")
            # a run's checkpoint may already rely on what was recorded, so a record survives a power cut too
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def _create(path: Path) -> None:
    """Builds an empty memory aside and links it into place; loses without harm against another process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MemoryAccessError(f"cannot make the memory file {path}: {path.parent} is not a folder") from error
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)  # a process with our number may have died here
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file: readers and one writer at a time
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.executescript(SCHEMA)
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first, and its file is as good as ours
    finally:
        partial.unlink(missing_ok=True)


def _identify(path: Path) -> None:
    """Raises unless the file is a memory of this version; touches neither the file nor its folder."""
    if not path.is_file():
        raise NotAMemoryError(f"the memory {path} is not a file; name a file with --memory")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise MemoryAccessError(f"no permission to read and write the memory file {path}")
    # immutable: no locks, no log beside the file. Good for the header, which nobody changes, and for nothing more.
    uri = f"{path.absolute().as_uri()}?immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise NotAMemoryError(f"{path} is not a memory of Self-Pruner; name another file with --memory")
    if version > SCHEMA_VERSION:
        raise NewerMemoryError(
            f"the memory file {path} has format {version}, this version reads {SCHEMA_VERSION}: update Self-Pruner"
        )
