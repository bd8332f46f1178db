"""The trace as the page takes it: records as they were written, also those of a version that writes more into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from self_pruner.agent.report.in_words import in_words, plan_in_words
from self_pruner.memory.errors import RunDirectoryError

KINDS = ("think", "act", "judge")  # in the order of a step


@dataclass
class TraceLines:
    """Records of a trace in the order of steps, and how far it was read."""

    records: list[dict[str, Any]] = field(default_factory=list)
    start: int = 0  # byte of the first
    end: int = 0  # bytes read; what follows is torn or still being written
    damaged: int = 0  # lines that are no records

    @property
    def last_judge(self) -> dict[str, Any]:
        """The last judgement; empty before there is one."""
        return next((one for one in reversed(self.records) if one["kind"] == "judge"), {})


def read_lines(path: Path, start: int = 0) -> TraceLines:
    """The records from byte `start` on; from the beginning where no line begins there.

    Raises:
        RunDirectoryError: there is no trace, or it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"cannot read the trace {path}: it is no file")
    try:
        with open(path, "rb") as file:
            if start > 0:
                file.seek(start - 1)
                if file.read(1) != b"\n":  # another file by now
                    start = 0
                    file.seek(0)
            content = file.read()
    except OSError as error:
        raise RunDirectoryError(f"cannot read the trace {path}: {error.strerror}") from error
    whole = content.rfind(b"\n") + 1
    found = TraceLines(start=start, end=start + whole)
    records: dict[tuple[int, int, int], dict[str, Any]] = {}
    for line in content[:whole].splitlines():
        record = _record(line)
        if record is None:
            found.damaged += 1
        else:
            records[record["step"], KINDS.index(record["kind"]), record.get("call", 0)] = record
    found.records = [records[key] for key in sorted(records)]
    return found


def _record(line: bytes) -> dict[str, Any] | None:
    """One record, a call and a plan with its words; None where the line is none."""
    try:
        record = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("kind") not in KINDS or type(record.get("step")) is not int:
        return None
    if not all(_are_objects(record, name) for name in ("replies", "result")):
        return None
    if record["kind"] == "act":
        if type(record.get("call")) is not int or not isinstance(record.get("tool"), str):
            return None
        tool = record["tool"]
        arguments: Any = record.get("arguments")
        record["words"] = _words(lambda: in_words(tool, arguments), f"called {tool}")
    elif record["kind"] == "think" and isinstance(plan := record.get("plan"), dict):
        record["words"] = _words(lambda: plan_in_words(plan), "a plan that cannot be read")
    return record


def _are_objects(record: dict[str, Any], name: str) -> bool:
    """Whether what the page goes through is lists of objects: the replies, or those in the answer of a tool.

    Otherwise it could show nothing of the run, or no step.
    """
    told = record.get(name)
    if name == "replies":
        return told is None or isinstance(told, list) and all(isinstance(one, dict) for one in told)
    lists = [told.get(one) for one in ("candidates", "results", "lessons")] if isinstance(told, dict) else []
    return all(isinstance(one, dict) for each in lists if isinstance(each, list) for one in each)


def _words(say: Callable[[], str], otherwise: str) -> str:
    """What is said, or `otherwise` of what no tool takes and no brain may state."""
    try:
        return say()
    except (AttributeError, KeyError, TypeError):
        return otherwise
