"""A memory file as it is read by whoever only looks at a run: nothing in it or beside it is made or changed.

A file that a run has open has its log beside it and is read together with that; one that nobody has open is read as it
lies. A file of an older version is read for what it has.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from self_pruner.memory.database import corrupt, faults_in_words
from self_pruner.memory.errors import MemoryFileError

SECONDS = 2.0  # how long a reader waits for a lock
NAMES = ("parents", "survivors")  # columns of JSON: lists of candidates
LISTS = (*NAMES, "attention", "mlp", "values")  # all columns of JSON
QUERIES = {  # what belongs to a run by itself, what was measured of whatever profiles, and what others had learnt
    "candidate": "SELECT * FROM candidate WHERE context = :context AND run = :run ORDER BY rowid",
    "generation": "SELECT * FROM generation WHERE context = :context AND run = :run ORDER BY number",
    "score": "SELECT profile, text, sequence, kl, nll, run, step, error FROM score WHERE context = :context "
    "ORDER BY profile, text, sequence",
    "sensitivities": "SELECT profile, sequence, attention, mlp, step FROM sensitivities WHERE context = :context "
    "ORDER BY rowid",
    "lesson": "SELECT * FROM lesson WHERE context = :context AND run <> :run ORDER BY rowid",  # those it began with
    "latency": 'SELECT profile, "values" FROM latency WHERE context = :context ORDER BY rowid',
}


def read_rows(path: Path, run: str) -> dict[str, list[dict[str, Any]]]:
    """What the file at `path` knows of the run with that id.

    Returns:
        Rows by table; a row holds values by column, profiles as their keys. A table that the file lacks is empty, and
        all are in a file of a run that has made and measured nothing.

    Raises:
        MemoryFileError: there is no such file, it is no memory or damaged, or another process keeps it locked.
    """
    with _reading(path) as connection:
        tables = _tables(connection)
        values = {"run": run, "context": _context(connection, run)}
        return {
            table: [_decoded(row) for row in connection.execute(query, values)] if table in tables else []
            for table, query in QUERIES.items()
        }


def read_prompt_uses(path: Path) -> list[dict[str, Any]]:
    """What came of prompt sets in every run that the file at `path` knows, by columns; raises as `read_rows`."""
    with _reading(path) as connection:
        if "prompt_use" not in _tables(connection):
            return []
        return [dict(row) for row in connection.execute("SELECT * FROM prompt_use ORDER BY name, digest, rowid")]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, at one moment for all its tables."""
    if not path.is_file():
        raise MemoryFileError(f"there is no memory file {path}")
    running = path.with_name(path.name + "-wal").exists()
    uri = f"{path.absolute().as_uri()}?{'mode=ro' if running else 'immutable=1'}"
    with faults_in_words(path), closing(sqlite3.connect(uri, uri=True, timeout=SECONDS)) as connection:
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            yield connection
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:  # a table that is another one's
                raise corrupt(path) from error
            raise
        except (ValueError, RecursionError) as error:  # a column of JSON that holds none
            raise corrupt(path) from error


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _context(connection: sqlite3.Connection, run: str) -> str:
    """The context of the run's search: that of its candidates, and before there are any, where most was measured."""
    for table, condition in (("candidate", "run = ?"), ("score", "'' <> ?")):
        query = f"SELECT context FROM {table} WHERE {condition} GROUP BY context ORDER BY count(*) DESC LIMIT 1"
        if found := connection.execute(query, [run]).fetchone():
            return str(found[0])
    return ""


def _decoded(row: sqlite3.Row) -> dict[str, Any]:
    found = {name: json.loads(row[name]) if name in LISTS else row[name] for name in row.keys()}  # noqa: SIM118
    for name in found.keys() & set(NAMES):
        if not (isinstance(found[name], list) and all(isinstance(one, str) for one in found[name])):
            raise ValueError(f"{name} are no names of candidates")
    return found
