"""What a brain was asked in each turn, kept so that other templates can be tried on it.

A line holds all that the prompt was made of and all that could be answered. Nothing that a run needs is read from the
file, so a line that was torn by a kill costs the turn that it was of, and nothing is forced to the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.no_links import LinkError, open_to_write
from self_pruner.prompts.variables import Variables

Tools = tuple[dict[str, Any], ...]  # functions in OpenAI's format


class AskedError(SelfPrunerError):
    """What a turn was asked is not known; the sentence says why."""


@dataclass(frozen=True, slots=True)
class AskedTurn:
    """A turn as the brain was asked: the prompt before it was written, and what it could answer."""

    step: int
    variables: Variables
    tools: Tools
    variants: tuple[Tools, ...]  # the same for each reply, where replies differ
    replies: int  # that were sampled
    seed: int  # they were sampled with
    room: int  # tokens that the prompt could have


_TURN = TypeAdapter(AskedTurn)


def keep(path: Path, turn: AskedTurn) -> None:
    """Append a turn to the file at `path`; where that cannot be done the turn is not kept, and the run goes on."""
    with suppress(OSError, LinkError, PydanticSerializationError):
        line = b"\n" + _TURN.dump_json(turn)  # the newline first: what a kill has torn stays a line of its own
        with open(open_to_write(path, os.O_WRONLY | os.O_APPEND), "wb", buffering=0) as file:
            file.write(line)


def recall(path: Path, step: int) -> AskedTurn:
    """The turn of that step, as it was asked last.

    Raises:
        AskedError: no turn is kept, or not that one; the sentence says which are.
    """
    try:
        turns = {turn.step: turn for turn in _turns(path)}
    except OSError as error:
        raise AskedError(f"{path} says what the brain was asked, and cannot be read: {error.strerror}") from error
    if step not in turns:
        kept = ", ".join(map(str, sorted(turns))) or "none"
        raise AskedError(f"the brain was asked nothing in step {step} that is kept; steps are {kept}")
    return turns[step]


def _turns(path: Path) -> Iterator[AskedTurn]:
    with open(path, "rb") as file:
        for line in file:
            try:
                yield _TURN.validate_json(line)
            except (ValidationError, RecursionError):  # torn, or of another version
                continue
