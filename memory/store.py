"""The memory: candidates and measurements that outlive a run, in one SQLite file, through two verbs.

`record` writes facts, `recall` reads them back. Everything is kept under a context, the digest of what makes scores
comparable (model, calibration, settings): one file serves any number of contexts, runs and processes, and no run ever
sees a measurement that it could not have made itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from memory.database import connect, corrupt, faults_in_words
from memory.profile import Profile
from memory.records import Candidate, Fact, Fitness, Generation, Latency, Score, Slopes, TaskScore

Record = TypeVar("Record", Candidate, Score, Slopes, TaskScore, Latency, Generation, Fitness)

TABLES: dict[type, str] = {
    Candidate: "candidate",
    Score: "score",
    Slopes: "slopes",
    TaskScore: "task_score",
    Latency: "latency",
    Generation: "generation",
    Fitness: "fitness",
}


class Memory:
    """What is known in one context; safe for several threads and processes at once."""

    def __init__(self, path: Path, context: str, description: Mapping[str, object], *, durable: bool = True) -> None:
        """Opens the file at `path`, making it where there is none.

        Args:
            path: the memory file, shared by runs.
            context: digest of everything that makes scores comparable.
            description: the same in words, for a person who looks into the file; JSON values.
            durable: whether every record is forced to the disk; a copy that can be made again need not be.

        Raises:
            MemoryFileError: the file is not a memory, is corrupt, too new, locked, or cannot be written.
        """
        self.path = Path(path)
        self.context = context
        self._lock = threading.RLock()
        self._connection = connect(self.path)
        try:
            if not durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")
            self._write([("INSERT OR IGNORE INTO context VALUES (?, ?)", [context, json.dumps(dict(description))])])
        except BaseException:
            self.close()
            raise

    @property
    def shared(self) -> Memory:
        """What all runs know: this memory itself, unless it is a run's own."""
        return self

    def sibling(self, context: str, description: Mapping[str, object]) -> Memory:
        """The same files in another context; to be closed."""
        return Memory(self.path, context, description)

    def record(self, *facts: Fact) -> None:
        """Writes facts, all or none; recording the same fact again changes nothing.

        A decision of a run (`Candidate`, `Generation`) replaces itself. A measurement (any
        other) stays as first measured, whoever measures again; only a failed score gives way to one that worked.

        Raises:
            MemoryFileError: the disk is full or the file cannot be written; then nothing was.
        """
        self._write([(_INSERTS[type(fact)], [self.context, *_row(fact)]) for fact in facts])

    def recall(
        self, kind: type[Record], *, order: str | Collection[str] = (), limit: int | None = None, **equals: object
    ) -> list[Record]:
        """Reads the facts of one kind in this context.

        Args:
            kind: which facts: one of `Fact`, or `Fitness`, the means of scores.
            order: fields to sort by, a leading "-" for descending, missing values last; ties and the default go by
                first recording (`Fitness`: by profile).
            limit: at most so many.
            **equals: field=value, or field=collection of values of which any may match.

        Raises:
            ValueError: a field that `kind` does not have.
            MemoryFileError: the file cannot be read.
        """
        names = [field.name for field in fields(kind)]
        orders = [order] if isinstance(order, str) else list(order)
        if unknown := {name.removeprefix("-") for name in orders}.union(equals).difference(names):
            raise ValueError(f"{kind.__name__} has no field {sorted(unknown)!r}, only {names!r}")
        where = ["context = ?"]
        values: list[Any] = [self.context]
        for name, value in equals.items():
            if isinstance(value, Collection) and not isinstance(value, str | Mapping):
                where.append(f'"{name}" IN (SELECT value FROM json_each(?))')
                values.append(json.dumps([_column(item) for item in value]))
            else:
                where.append(f'"{name}" IS ?')
                values.append(_column(value))
        sort = [f'"{name.removeprefix("-")}" {"DESC" if name[0] == "-" else "ASC"} NULLS LAST' for name in orders]
        sort.append("profile, sequences" if kind is Fitness else "rowid")
        selected = ", ".join(f'"{name}"' for name in names)
        sql = f"SELECT {selected} FROM {TABLES[kind]} WHERE {' AND '.join(where)} ORDER BY {', '.join(sort)} LIMIT ?"
        with self._lock, faults_in_words(self.path):
            rows = self._connection.execute(sql, [*values, -1 if limit is None else limit]).fetchall()
        try:
            return [_record(kind, row) for row in rows]
        except (ValueError, TypeError, RecursionError) as error:  # a row that no program wrote
            raise corrupt(self.path) from error

    def close(self) -> None:
        """Closes the file; the memory is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Memory:
        """The memory itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the file."""
        self.close()

    def _write(self, statements: list[tuple[str, list[Any]]]) -> None:
        """Runs the statements in one transaction that takes the write lock at once, so that it cannot deadlock."""
        with self._lock, faults_in_words(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._connection.execute(sql, values)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    self._connection.execute("ROLLBACK")
                raise


def columns(kind: type[Fact]) -> str:
    """The columns of one kind of fact, as SQL names them."""
    return ", ".join(("context", *(f'"{field.name}"' for field in fields(kind))))


def upsert(kind: type[Fact], table: str, rows: str) -> str:
    """The idempotent insert of facts of one kind: SQL that writes `rows`, a VALUES or a SELECT, to `table`."""
    names = [field.name for field in fields(kind)]
    key = ", ".join(("context", *kind.key))
    update = "UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in kind.key)
    if kind in (Score, TaskScore):
        update += f" WHERE {TABLES[kind]}.error IS NOT NULL"
    elif kind in (Latency, Slopes):
        update = "NOTHING"
    return f"INSERT INTO {table} ({columns(kind)}) {rows} ON CONFLICT ({key}) DO {update}"


def _insert(kind: type[Fact]) -> str:
    places = ", ".join("?" * (len(fields(kind)) + 1))
    return upsert(kind, TABLES[kind], f"VALUES ({places})")


_INSERTS = {kind: _insert(kind) for kind in get_args(Fact)}


def _row(fact: Fact) -> list[Any]:
    return [_column(getattr(fact, field.name)) for field in fields(fact)]


def _column(value: object) -> Any:
    """A field as SQLite stores it."""
    if isinstance(value, Profile):
        return value.key()
    if isinstance(value, tuple | dict):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, str):
        # a brain can spell half a surrogate pair in JSON, and UTF-8 has no way to store one
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


_DECODERS: dict[Any, Callable[[str], Any]] = {
    Profile: Profile.from_key,
    tuple[str, ...]: lambda text: tuple(json.loads(text)),
    tuple[tuple[float, ...], ...]: lambda text: tuple(map(tuple, json.loads(text))),
    dict[str, float]: json.loads,
}
_READERS = {
    kind: [_DECODERS.get(get_type_hints(kind)[field.name]) for field in fields(kind)]
    for kind in (*get_args(Fact), Fitness)
}


def _record(kind: type[Record], row: tuple[Any, ...]) -> Record:
    return kind(*(value if read is None else read(value) for read, value in zip(_READERS[kind], row, strict=True)))
