"""Connections of SQLite that say each statement before it is carried out, in the thread that asks for it.

SQLite's own trace callback would not do. It is called under the database's lock and swallows what it raises, Ctrl-C
included; and taking it off from another thread hangs: that waits for the lock and holds the interpreter's, for which
the callback waits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any


def watch_databases(say: Callable[[str], None]) -> None:
    """From now on whoever connects gets a connection that says its statements."""
    real = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        """Says what it is given."""

        def execute(self, sql: str, /, *values: Any) -> Any:
            say(sql)
            return super().execute(sql, *values)

        def executemany(self, sql: str, /, *values: Any) -> Any:
            say(sql)
            return super().executemany(sql, *values)

        def executescript(self, script: str, /) -> Any:
            for sql in statements(script):
                say(sql)
                super().executescript(sql)
            return self

    class Connection(sqlite3.Connection):
        """Whose cursors all do, and which says what it commits."""

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, /, *values: Any) -> Any:
            return self.cursor().execute(sql, *values)

        def executemany(self, sql: str, /, *values: Any) -> Any:
            return self.cursor().executemany(sql, *values)

        def executescript(self, script: str, /) -> Any:
            return self.cursor().executescript(script)

        def commit(self) -> None:
            if self.in_transaction:
                say("COMMIT")
            super().commit()

        def __exit__(self, *error: Any) -> Any:
            if self.in_transaction and error[0] is None:
                say("COMMIT")
            return super().__exit__(*error)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return real(*arguments, **{"factory": Connection, **options})

    sqlite3.connect = connect  # type: ignore[assignment]


def statements(script: str) -> Iterator[str]:
    """Each statement of a script by itself, so that it can be ended between any two."""
    begun = ""
    for piece in script.split(";"):
        begun += f"{piece};"
        if sqlite3.complete_statement(begun):
            if begun.strip(" \n;"):
                yield begun
            begun = ""
