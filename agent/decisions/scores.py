"""The scores beside a decision set: rows of every call, as long as the situations that they are of stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from self_pruner.agent.decisions.decision_set import DecisionSet, DecisionSetError, DecisionSituation
from self_pruner.agent.decisions.score import Decided, Row
from self_pruner.agent.decisions.statistics import TIE
from self_pruner.agent.decisions.table import page
from self_pruner.agent.run_files.atomic_write import atomic_write

SCORES, TABLE = "scores.json", "table.md"
DIGITS = 16  # of a stamp
_ROWS = TypeAdapter(tuple[Row, ...])


def known_rows(folder: Path, found: DecisionSet) -> tuple[list[Row], list[Row]]:
    """The rows that were scored before: those that stay, and those that go since their situations changed.

    Raises:
        DecisionSetError: the file is damaged.
    """
    rows, whole = read_scores(folder)
    former = _former(found, whole)
    stay, go = [], []
    for row in rows:
        stamp = stamp_of(found, row.decided)
        same = row.stamp == stamp if row.stamp is not None else all(one.situation in former for one in row.decided)
        if same and stamp is not None:
            stay.append(replace(row, stamp=stamp))
        else:
            go.append(row)
    return stay, go


def read_scores(folder: Path) -> tuple[list[Row], object]:
    """The rows in a folder, and the stamp that older versions put on all of them; none where there is no file.

    Raises:
        DecisionSetError: the file is damaged: it is refused, since what is written next would take its place.
    """
    path = folder / SCORES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return list(map(_read_by_now, _ROWS.validate_python(content["rows"]))), content.get("set")
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecisionSetError(
            f"{path} cannot be read as scores: move it away, and its brains are scored anew"
        ) from error


def write_rows(folder: Path, found: DecisionSet, rows: Sequence[Row]) -> None:
    """Write the scores and their tables; raises WriteError."""
    content = {"rows": _ROWS.dump_python(tuple(rows), mode="json")}
    atomic_write(folder / SCORES, json.dumps(content) + "\n")
    kinds = tuple(dict.fromkeys(row.kind for row in rows))
    atomic_write(folder / TABLE, page(found, rows, kinds))


def _read_by_now(row: Row) -> Row:
    """A row of before, which had a zero where the order of the options makes no difference to the prompt."""
    if any(abs(one.first_quarter or 0.0) > TIE for one in row.decided):
        return row
    return replace(row, decided=tuple(replace(one, first_quarter=None) for one in row.decided))


def stamp_of(found: DecisionSet, decided: Iterable[Decided]) -> str | None:
    """A digest of the outcomes of the situations that were decided; None where the set lacks one of them."""
    there = {one.id: one for one in found.situations}
    try:
        return _digest(there[one.situation] for one in decided)
    except KeyError:
        return None


def _digest(situations: Iterable[DecisionSituation]) -> str:
    outcomes = [[one.id, one.outcomes] for one in situations]
    return hashlib.sha256(json.dumps(outcomes).encode()).hexdigest()[:DIGITS]


def _former(found: DecisionSet, whole: object) -> set[str]:
    """The situations that a file of an older version is of, which has one stamp over all that the set had then.

    A set grows at its end, so what it had then is what it begins with; empty where no beginning has that stamp.
    """
    told = hashlib.sha256(b"[")
    names: set[str] = set()
    for one in found.situations:
        told.update((", " if names else "").encode() + json.dumps([one.id, one.outcomes]).encode())
        names.add(one.id)
        ended = told.copy()
        ended.update(b"]")
        if ended.hexdigest()[:DIGITS] == whole:
            return names
    return set()
