"""Only the newest checkpoint of a search stays, with its pending writes: that is all a resumed run reads.

LangGraph keeps the state after every node for ever. Here SQLite itself drops the older ones in the same transaction
that writes a new one, so a kill leaves one whole checkpoint at any moment, and the file does not grow with the search.
Newest means written last, not latest by the clock: after a clock was set back, LangGraph alone would go on with an old
state, since it sorts by time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from langgraph.checkpoint.sqlite import SqliteSaver

from self_pruner.agent.run_files.strict_checkpoints import StrictSerializer
from self_pruner.memory.no_links import refuse_link

NEWEST_ONLY = """
CREATE TRIGGER IF NOT EXISTS newest_only AFTER INSERT ON checkpoints BEGIN
    DELETE FROM writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id <> NEW.checkpoint_id;
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id <> NEW.checkpoint_id;
END
"""


def keep_newest(saver: SqliteSaver) -> SqliteSaver:
    """The same saver, whose file keeps the newest checkpoint of every thread and nothing else."""
    with saver.cursor() as cursor:
        cursor.execute(NEWEST_ONLY)
    return saver


@contextmanager
def checkpoints(path: Path) -> Iterator[SqliteSaver]:
    """Where a search keeps its state, in the SQLite file at `path`; raises LinkError."""
    refuse_link(path)
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        yield keep_newest(SqliteSaver(connection, serde=StrictSerializer()))
