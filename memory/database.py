"""The file behind the memory: its schema, how it is opened without harm, and what can go wrong with it in words.

A file is identified by its header before anything may write to it, so a file that is not ours, is damaged or comes from
a newer version is left as it was. A new file is built aside and linked into place, so two
processes that start at once agree on one file and nobody ever sees half of it. A file of an older version is brought up
to date in one transaction, and keeps everything it holds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.partials import LOGS, clear_partials, partial_of

APPLICATION_ID = 0x53505230  # "SPR0", in the header of every memory file
SCHEMA_VERSION = 7
BUSY_SECONDS = 60.0  # how long a writer waits for the other process

TASK_SCORE = """
CREATE TABLE task_score (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, task TEXT NOT NULL, rows INTEGER NOT NULL,
    metric TEXT NOT NULL, data TEXT NOT NULL, value REAL, standard_error REAL, run TEXT NOT NULL, step INTEGER NOT NULL,
    error TEXT, UNIQUE (context, profile, task, metric, data)
) STRICT;
"""
SENSITIVITIES = """
CREATE TABLE sensitivities (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, text TEXT NOT NULL, sequence INTEGER NOT NULL,
    attention TEXT NOT NULL, mlp TEXT NOT NULL, run TEXT NOT NULL, step INTEGER NOT NULL,
    UNIQUE (context, profile, text, sequence)
) STRICT;
"""
LESSON = """
CREATE TABLE lesson (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, generation INTEGER NOT NULL, number INTEGER NOT NULL,
    take TEXT NOT NULL, give TEXT NOT NULL, amount TEXT NOT NULL, expected TEXT NOT NULL, verdict TEXT NOT NULL,
    change REAL NOT NULL, error REAL NOT NULL, evidence TEXT NOT NULL, params INTEGER NOT NULL, step INTEGER NOT NULL,
    UNIQUE (context, run, generation, number)
) STRICT;
"""
LESSON_MODEL = "ALTER TABLE lesson ADD COLUMN model TEXT NOT NULL DEFAULT '';"
PROMPT_USE = """
CREATE TABLE prompt_use (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, digest TEXT NOT NULL, name TEXT NOT NULL,
    brain TEXT NOT NULL, turns INTEGER NOT NULL, replies INTEGER NOT NULL, illegal INTEGER NOT NULL,
    failed INTEGER NOT NULL, tokens INTEGER NOT NULL, made INTEGER NOT NULL, repaired INTEGER NOT NULL,
    compared INTEGER NOT NULL, improved INTEGER NOT NULL, chance_compared INTEGER NOT NULL,
    chance_improved INTEGER NOT NULL, step INTEGER NOT NULL, UNIQUE (context, run)
) STRICT;
"""
SCHEMA = f"""
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
{SENSITIVITIES}
{TASK_SCORE}
CREATE TABLE latency (
    context TEXT NOT NULL REFERENCES context, profile TEXT NOT NULL, setting TEXT NOT NULL, "values" TEXT NOT NULL,
    run TEXT NOT NULL, step INTEGER NOT NULL, UNIQUE (context, profile, setting)
) STRICT;
CREATE TABLE generation (
    context TEXT NOT NULL REFERENCES context, run TEXT NOT NULL, number INTEGER NOT NULL, survivors TEXT NOT NULL,
    best TEXT NOT NULL, note TEXT NOT NULL, step INTEGER NOT NULL, UNIQUE (context, run, number)
) STRICT;
{LESSON}
{LESSON_MODEL}
{PROMPT_USE}
CREATE VIEW fitness AS
    SELECT context, profile, text, sequences, kl, nll FROM (
        SELECT context, profile, text, sequence + 1 AS sequences, error,
            CASE WHEN count(kl) OVER so_far = sequence + 1 THEN avg(kl) OVER so_far END AS kl,
            CASE WHEN count(nll) OVER so_far = sequence + 1 THEN avg(nll) OVER so_far END AS nll,
            count(*) OVER so_far AS present, count(error) OVER so_far AS failed
        FROM score WINDOW so_far AS (PARTITION BY context, text, profile ORDER BY sequence)
    ) WHERE present = sequences AND failed = 0;
"""

MIGRATIONS: dict[int, tuple[str, ...]] = {  # from this version to the next
    1: (TASK_SCORE,),
    2: (SENSITIVITIES.replace("TABLE sensitivities", "TABLE slopes"),),
    3: (SENSITIVITIES, "INSERT INTO sensitivities SELECT * FROM slopes;", "DROP TABLE slopes;"),
    4: (LESSON,),
    5: (PROMPT_USE,),
    6: (LESSON_MODEL,),
}


class CorruptMemoryError(MemoryFileError):
    """The file is damaged."""


_CORRUPT = "the memory file {path} is corrupt; move it away or name another with --memory"
_FAULTS: dict[int, tuple[type[MemoryFileError], str]] = {
    sqlite3.SQLITE_NOTADB: (MemoryFileError, "the memory file {path} is not a database; name another with --memory"),
    sqlite3.SQLITE_CORRUPT: (CorruptMemoryError, _CORRUPT),
    sqlite3.SQLITE_CANTOPEN: (MemoryFileError, "no permission to open the memory file {path} or to write beside it"),
    sqlite3.SQLITE_READONLY: (MemoryFileError, "no permission to write the memory file {path}"),
    sqlite3.SQLITE_PERM: (MemoryFileError, "no permission to use the memory file {path}"),
    sqlite3.SQLITE_IOERR: (MemoryFileError, "the disk failed while reading or writing the memory file {path}"),
    sqlite3.SQLITE_FULL: (MemoryFileError, "the disk is full: nothing more can be written to the memory file {path}"),
    sqlite3.SQLITE_BUSY: (
        MemoryFileError,
        "another process kept the memory file {path} locked for {seconds:.0f} seconds",
    ),
}


def corrupt(path: Path) -> CorruptMemoryError:
    """The error of a file whose rows are not what was written."""
    return CorruptMemoryError(_CORRUPT.format(path=path))


@contextmanager
def faults_in_words(path: Path) -> Iterator[None]:
    """Raises SQLite's complaints about the file as a `MemoryFileError`; mistakes in our own SQL pass through."""
    try:
        yield
    except UnicodeDecodeError as error:  # a damaged name, in what SQLite itself says of it
        raise corrupt(path) from error
    except sqlite3.Error as error:
        # the low byte is the primary code, the rest a detail; an error of the Python module itself has no code
        fault = _FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if fault is None and str(error).startswith("Could not decode to UTF-8"):
            fault = CorruptMemoryError, _CORRUPT  # a text that nobody wrote: SQLite itself looks into no text
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
            clear_partials(path)  # of whoever was killed once its memory had its name
        except OSError as error:
            raise MemoryFileError(f"cannot make the memory file {path}: {error.strerror}") from error
        _identify(path)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise CorruptMemoryError(_CORRUPT.format(path=path))
            _migrate(connection, path)
            _check_schema(connection, path)
            connection.execute("PRAGMA foreign_keys = ON")
            # a run's checkpoint may already rely on what was recorded, so a record survives a power cut too
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def check(path: Path) -> None:
    """Raises what `connect` would for a file that is not a memory; neither makes nor changes one."""
    with faults_in_words(path):
        if path.exists():
            _identify(path)


def _create(path: Path) -> None:
    """Builds an empty memory aside and links it into place; loses without harm against another process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MemoryFileError(f"cannot make the memory file {path}: {path.parent} is not a folder") from error
    partial = partial_of(path)
    _discard(partial)  # a process with our number may have died here
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file: readers and one writer at a time
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.executescript(SCHEMA)
            # Into the file itself, which alone gets the name: closing does it too, and says nothing of a full disk.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first, and its file is as good as ours
    finally:
        _discard(partial)


def _discard(partial: Path) -> None:
    """Removes a file that was being built, with the logs beside it that SQLite leaves where the disk is full."""
    for suffix in ("", *LOGS):
        partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings a file of an older version up to date: all of it or nothing, and once, however many processes try."""
    if _version(connection) < SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # read again: another process may have been first
            for version in range(_version(connection), SCHEMA_VERSION):
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        # into the file itself: whoever identifies it looks at nothing else
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    _refuse_newer(_version(connection), path)  # what the log beside the file knows, its header may not


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raises for a file that lacks a table or a column of them: quick_check looks at pages alone."""
    try:
        known = _columns(connection)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:  # a name that is no UTF-8 has no code
            raise
        raise corrupt(path) from error  # a view whose table is gone
    if not known >= _schema_columns():
        raise corrupt(path)


def _columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Every table or view of the file with each of its columns."""
    rows = connection.execute(
        "SELECT master.name, info.name FROM sqlite_master AS master JOIN pragma_table_info(master.name) AS info "
        "WHERE master.type IN ('table', 'view')"
    )
    return set(rows)


@cache
def _schema_columns() -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _columns(connection)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _refuse_newer(version: int, path: Path) -> None:
    if version > SCHEMA_VERSION:
        raise MemoryFileError(
            f"the memory file {path} has format {version}, this version reads {SCHEMA_VERSION}: update Self-Pruner"
        )


def _identify(path: Path) -> None:
    """Raises unless the file is a memory of this version or an older one; touches neither the file nor its folder."""
    if not path.is_file():
        raise MemoryFileError(f"the memory {path} is not a file; name a file with --memory")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise MemoryFileError(f"no permission to read and write the memory file {path}")
    # immutable: no locks, no log beside the file. Good for the header, which hardly ever changes, and for nothing more.
    uri = f"{path.absolute().as_uri()}?immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        version = _version(connection)
    if application != APPLICATION_ID:
        raise MemoryFileError(f"{path} is not a memory of Self-Pruner; name another file with --memory")
    _refuse_newer(version, path)
