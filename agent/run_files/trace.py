"""The trace: one typed record a step, appended to a file, which serves the screen, the report and the replay.

A line is written whole and forced to the disk before the step counts as done. A run that was killed may leave a torn
last line, which belongs to a step that will be run again; a step that is run again supersedes its earlier records.
Nothing that a run needs is read from it, so a damaged line costs what it would have told and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.no_links import open_to_write
from self_pruner.tools.text.redaction import without_keys


class _Record(BaseModel):
    """What all records share: nothing in them changes, is unknown, is secret or cannot be written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _writable(cls, data: Any) -> Any:
        return without_keys(data)


NOTHING_NEW = "(nothing new was found)"  # in the place of a prompt: so nothing was called


class Reply(_Record):
    """One sampled completion of the brain."""

    raw: str
    thought: str = ""
    call: dict[str, JsonValue] | None = None  # {"name": ..., "args": {...}, ...}; None where the reply holds none


class Think(_Record):
    """The brain was asked and answered, or failed to."""

    kind: Literal["think"] = "think"
    step: int
    generation: int
    prompt: str
    replies: tuple[Reply, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input: those whose keys and values were still known
    decode_steps: int = 0
    forced_tokens: int = 0  # of the output: those the grammar left no choice about
    seconds: float = 0.0
    illegal: int = 0  # replies that no rule allowed, refused before any tool saw them
    plan: dict[str, JsonValue] | None = None  # of this generation, where this turn stated one
    told: tuple[str, ...] = ()  # notes of a person that were new in this prompt
    fallback: bool = False  # the turn was the brain's, it failed, and the tool decided it
    error: str | None = None
    at: float | None = None  # seconds since 1970 when it was written; None in traces of older runs

    @model_validator(mode="before")
    @classmethod
    def _of_older_runs(cls, data: Any) -> Any:
        """Traces of older runs count replies beyond those asked for, which nobody reads."""
        return {name: value for name, value in data.items() if name != "surplus"} if isinstance(data, dict) else data


class Act(_Record):
    """One tool call was run."""

    kind: Literal["act"] = "act"
    step: int
    call: int  # which call of the step, from 0
    tool: str
    arguments: dict[str, JsonValue]
    result: JsonValue = None
    repair: int = 0  # units that repair changed
    tokens: int = 0  # tokens of text run through candidates
    seconds: float = 0.0
    error: str | None = None
    at: float | None = None


class Judge(_Record):
    """The rule that ends a run looked at what was spent."""

    kind: Literal["judge"] = "judge"
    step: int
    generation: int
    spent: dict[str, float]  # evaluations, tokens, minutes, ...
    best: str | None = None  # candidate id
    fitness: float | None = None  # of the best
    stop: str | None = None  # why the run ends; None where it goes on
    at: float | None = None


TraceRecord = Think | Act | Judge

_RECORD: TypeAdapter[TraceRecord] = TypeAdapter(Annotated[TraceRecord, Field(discriminator="kind")])
_PLACE = {"think": 0, "act": 1, "judge": 2}  # the order of things within a step


@dataclass
class Step:
    """What one step left in the trace."""

    number: int
    think: Think | None = None
    acts: list[Act] = field(default_factory=list)
    judge: Judge | None = None


class TraceWriter:
    """Appends records to a trace."""

    def __init__(self, path: Path) -> None:
        """Opens the trace at `path`, making it where there is none and cutting off a torn last line.

        Raises:
            RunDirectoryError: no permission to write it.
            LinkError: a link lies in its place.
        """
        self.path = path
        try:
            # os.write of the whole line, no buffer: a kill tears at most the last line
            self._descriptor = open_to_write(path, os.O_RDWR | os.O_APPEND)
            _cut_torn_line(self._descriptor)
        except OSError as error:
            raise RunDirectoryError(f"cannot open the trace {path}: {error.strerror}") from error

    def write(self, record: TraceRecord) -> None:
        """Appends one record and forces it to the disk.

        Raises:
            RunDirectoryError: the disk is full or failed; the trace is as it was.
        """
        rest = memoryview(record.model_dump_json().encode("utf-8") + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # a disk that fails may refuse this too; the next to open the trace does it then
                _cut_torn_line(self._descriptor)
            raise RunDirectoryError(f"cannot write the trace {self.path}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TraceRecords(list[TraceRecord]):
    """The records of a trace, and how much of it could not be read."""

    damaged: int = 0  # lines that are no records

    def gaps(self) -> list[str]:
        """What is missing in what is told from these, in at most one sentence."""
        return left_out(self.damaged)


def left_out(damaged: int) -> list[str]:
    """That so many lines of a trace are no records, in at most one sentence."""
    if not damaged:
        return []
    lines = "1 line of the trace is" if damaged == 1 else f"{damaged} lines of the trace are"
    return [f"{lines} damaged and {'was' if damaged == 1 else 'were'} left out"]


def read_trace(path: Path) -> TraceRecords:
    """Reads a trace, also one that is being written.

    Returns:
        The records in the order of steps; of a step that was run again only what it said last. Damaged lines are
        left out and counted.

    Raises:
        RunDirectoryError: there is no trace, or it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"cannot read the trace {path}: it is no file")
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn or still being written
    except OSError as error:
        raise RunDirectoryError(f"cannot read the trace {path}: {error.strerror}") from error
    records: dict[tuple[int, int, int], TraceRecord] = {}
    damaged = 0
    for line in lines:
        try:
            record = _RECORD.validate_json(line)
        except (ValidationError, RecursionError):
            damaged += 1
            continue
        records[_key(record)] = record
    found = TraceRecords(records[key] for key in sorted(records))
    found.damaged = damaged
    return found


def by_step(records: Sequence[TraceRecord]) -> dict[int, Step]:
    """Groups records by step, in the order of steps."""
    steps: dict[int, Step] = {}
    for record in sorted(records, key=_key):
        step = steps.setdefault(record.step, Step(record.step))
        match record:
            case Think():
                step.think = record
            case Act():
                step.acts.append(record)
            case Judge():
                step.judge = record
    return steps


def _key(record: TraceRecord) -> tuple[int, int, int]:
    """What makes two records the same one, told twice; sorts as things happened."""
    return record.step, _PLACE[record.kind], record.call if isinstance(record, Act) else 0


def _cut_torn_line(descriptor: int) -> None:
    """Shortens the file to its last whole line."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
