"""What a search's checkpoint holds: the newest state, made of plain values and the messages of a turn.

**Only the newest stays**, with its pending writes: that is all a resumed run reads. LangGraph keeps the state after
every node for ever. Here SQLite itself drops the older ones in the same transaction that writes a new one, so a kill
leaves one whole checkpoint at any moment, and the file does not grow with the search. Newest means written last, not
latest by the clock: after a clock was set back, LangGraph alone would go on with an old state, since it sorts by time.

**Whatever else it names is refused.** LangGraph's own serialiser imports and calls what a checkpoint names, so that a
run directory from a stranger could run any program on `resume`. A search writes nothing but numbers, texts, lists,
tables and the messages of one turn; these are all that is read back, and what else is there is neither imported nor
quietly passed on as plain data.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ormsgpack
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import EXT_PYDANTIC_V2, JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.no_links import refuse_link

_MESSAGES: dict[tuple[str, str], type[BaseMessage]] = {
    (kind.__module__, kind.__name__): kind for kind in (AIMessage, HumanMessage, SystemMessage, ToolMessage)
}
NEWEST_ONLY = """
CREATE TRIGGER IF NOT EXISTS newest_only AFTER INSERT ON checkpoints BEGIN
    DELETE FROM writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id <> NEW.checkpoint_id;
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id <> NEW.checkpoint_id;
END
"""


@contextmanager
def checkpoints(path: Path) -> Iterator[SqliteSaver]:
    """Where a search keeps its state, in the SQLite file at `path`; raises LinkError."""
    refuse_link(path)
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        yield keep_newest(SqliteSaver(connection, serde=StrictSerializer()))


def keep_newest(saver: SqliteSaver) -> SqliteSaver:
    """The same saver, whose file keeps the newest checkpoint of every thread and nothing else."""
    with saver.cursor() as cursor:
        cursor.execute(NEWEST_ONLY)
    return saver


class StrictSerializer(JsonPlusSerializer):
    """Writes what LangGraph writes, and reads plain values and messages only."""

    def __init__(self) -> None:
        """Without pickle and without any type of LangGraph's own choice."""
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """One value of the checkpoint.

        Raises:
            RunDirectoryError: it is damaged, or something that no search writes; nothing of it was carried out.
        """
        kind, content = data
        if kind == "null":
            return None
        if kind != "msgpack":
            raise RunDirectoryError(_refusal(f"a value of type {kind!r}"))
        reader = _Reader()
        try:
            value = reader.read(content)
        except ormsgpack.MsgpackDecodeError as error:
            raise RunDirectoryError(f"the run's checkpoint.sqlite is damaged: {error}") from error
        if reader.foreign:
            raise RunDirectoryError(_refusal(reader.foreign[0]))
        return value


class _Reader:
    """Reads one value and notes what it may not hold: msgpack keeps no error of a hook."""

    def __init__(self) -> None:
        self.foreign: list[str] = []

    def read(self, content: bytes) -> Any:
        return ormsgpack.unpackb(content, ext_hook=self._message, option=ormsgpack.OPT_NON_STR_KEYS)

    def _message(self, code: int, content: bytes) -> BaseMessage | None:
        """The message that an extension of msgpack stands for; None, and noted, where it is none."""
        try:
            module, name, values = self.read(content)[:3]
            if code != EXT_PYDANTIC_V2:
                raise ValueError("messages are no calls")
            return _MESSAGES[module, name].model_validate(values)
        except (ValueError, TypeError, KeyError):
            self.foreign.append(_named(content))
            return None


def _named(content: bytes) -> str:
    """What an extension names, without looking further into it."""
    try:
        module, name = ormsgpack.unpackb(content, ext_hook=lambda code, data: None)[:2]
    except (ValueError, TypeError, KeyError):
        return "something unknown"
    return f"{module}.{name}"[:100]


def _refusal(what: str) -> str:
    return (
        f"the run's checkpoint.sqlite holds {what}, which no search writes; it may be meant to run a program, so the "
        "run is not resumed"
    )
