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
from typing import Any, TypeVar, cast, get_args, get_type_hints

from self_pruner.memory.database import connect, corrupt, faults_in_words
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import (
    Candidate,
    Fact,
    Fitness,
    Generation,
    Latency,
    Lesson,
    PromptUse,
    Score,
    Sensitivities,
    TaskScore,
)

Record = TypeVar("Record", Candidate, Score, Sensitivities, TaskScore, Latency, Generation, Lesson, PromptUse, Fitness)

_DESCRIBE = "INSERT INTO context VALUES (?, ?) ON CONFLICT (context) DO UPDATE SET description = excluded.description"
TABLES: dict[type, str] = {
    Candidate: "candidate",
    Score: "score",
    Sensitivities: "sensitivities",
    TaskScore: "task_score",
    Latency: "latency",
    Generation: "generation",
    Lesson: "lesson",
    PromptUse: "prompt_use",
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
        self.description = dict(description)
        self._decided: dict[tuple[type, object], dict[object, Any]] = {}  # all that a run decided, by key
        self._means: dict[tuple[object, object], dict[object, Any]] = {}  # by profile and text, then sequences
        self._version = -1  # of the file, as other connections wrote it
        self._lock = threading.RLock()
        self._connection = connect(self.path)
        try:
            if not durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")
            self._write([(_DESCRIBE, [context, json.dumps(self.description)])])
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

        A decision of a run (`Candidate`, `Generation`, `Lesson`, `PromptUse`) replaces itself. A measurement (any
        other) stays as first measured, whoever measures again; only a failed score gives way to one that worked.

        Raises:
            MemoryFileError: the disk is full or the file cannot be written; then nothing was.
        """
        with self._lock:
            self._write([(_INSERTS[type(fact)], [self.context, *_row(fact)]) for fact in facts])
            for fact in facts:
                if isinstance(fact, Candidate | Generation) and (type(fact), fact.run) in self._decided:
                    self._decided[type(fact), fact.run][key_of(fact)] = _stored(fact)
                elif isinstance(fact, Score):
                    self._means.pop((fact.profile, fact.text), None)

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
        with self._lock:
            self._forget_what_others_changed()
            plain = not order and limit is None and all(isinstance(one, Profile | str | int) for one in equals.values())
            if plain and kind in (Candidate, Generation) and equals.keys() == {"run"}:
                return list(self._decisions(kind, equals["run"]).values())
            if plain and kind is Candidate and equals.keys() == {"run", "id"}:
                found = self._decisions(kind, equals["run"]).get((equals["run"], equals["id"]))
                return [found] if found else []
            if plain and kind is Fitness and equals.keys() == {"profile", "text", "sequences"}:
                means = self._means.setdefault((equals["profile"], equals["text"]), {})
                if equals["sequences"] not in means:
                    means[equals["sequences"]] = self._select(kind, order, limit, equals)
                return list(means[equals["sequences"]])
            return self._select(kind, order, limit, equals)

    def recall_elsewhere(self, kind: type[Record], *alike: str) -> list[tuple[dict[str, Any], list[Record]]]:
        """The facts of one kind of every other context whose description has the same values by the names `alike`.

        Returns:
            The description of each such context and its facts, oldest first; [] where this one lacks a value.

        Raises:
            MemoryFileError: the file cannot be read.
        """
        with self._lock, faults_in_words(self.path):
            sql = "SELECT context, description FROM context WHERE context <> ? ORDER BY rowid"
            others = self._connection.execute(sql, [self.context]).fetchall()
        try:
            described = [(context, json.loads(text)) for context, text in others]
        except (ValueError, RecursionError) as error:  # a row that no program wrote
            raise corrupt(self.path) from error
        return [
            (description, self._select(kind, (), None, {}, context))
            for context, description in described
            if isinstance(description, dict)
            and all(name in self.description and description.get(name) == self.description[name] for name in alike)
        ]

    def _decisions(self, kind: type[Record], run: object) -> dict[object, Any]:
        """All candidates or generations of a run by key: read once, then extended by what is recorded here."""
        known = self._decided.get((kind, run))
        if known is None:
            rows = self._select(kind, (), None, {"run": run})
            known = self._decided[kind, run] = {key_of(cast(Fact, row)): row for row in rows}
        return known

    def _forget_what_others_changed(self) -> None:
        """Drops what is kept of the file where another connection has written to it since."""
        with faults_in_words(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self._decided.clear()
            self._means.clear()

    def _select(
        self,
        kind: type[Record],
        order: str | Collection[str],
        limit: int | None,
        equals: Mapping[str, object],
        context: str | None = None,
    ) -> list[Record]:
        """`recall` from the file, of this context or another one."""
        names = [field.name for field in fields(kind)]
        orders = [order] if isinstance(order, str) else list(order)
        if unknown := {name.removeprefix("-") for name in orders}.union(equals).difference(names):
            raise ValueError(f"{kind.__name__} has no field {sorted(unknown)!r}, only {names!r}")
        where = ["context = ?"]
        values: list[Any] = [self.context if context is None else context]
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
        return self

    def __exit__(self, *exception: object) -> None:
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
    elif kind in (Latency, Sensitivities):
        update = "NOTHING"
    return f"INSERT INTO {table} ({columns(kind)}) {rows} ON CONFLICT ({key}) DO {update}"


def _insert(kind: type[Fact]) -> str:
    places = ", ".join("?" * (len(fields(kind)) + 1))
    return upsert(kind, TABLES[kind], f"VALUES ({places})")


_INSERTS = {kind: _insert(kind) for kind in get_args(Fact)}


def key_of(fact: Fact) -> tuple[object, ...]:
    """By which the same fact, told again, is the same row."""
    return tuple(getattr(fact, name) for name in fact.key)


def _stored(fact: Fact) -> Fact:
    """The fact as it is read back: what SQLite cannot hold is replaced."""
    kind: Any = type(fact)
    stored: Fact = _record(kind, tuple(_row(fact)))
    return stored


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
