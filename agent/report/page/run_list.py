"""The runs and comparisons below a folder, for the list that `watch` shows; a folder that is neither is passed over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from self_pruner.agent.report.page.overview import budget_words, progress
from self_pruner.agent.report.page.run_state import alive, run_state
from self_pruner.agent.report.page.trace_lines import read_lines
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory
from self_pruner.agent.run_files.steering import NOTES, REQUEST
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.limits import counted
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.settings.stated import with_defaults
from self_pruner.memory.errors import SelfPrunerError

WATCHED = (  # the files of a run by which one sees that something is new
    *("settings.toml", "status.json", RESULT, "trace.jsonl", "records.sqlite", "records.sqlite-wal"),
    *(".lock", NOTES, REQUEST, "model/evaluation.json"),
)
PLAN, TABLE = "plan.json", "table.md"  # of a comparison
FINISHED = "comparison.json"  # of a finished run of one
TAIL = 65_536  # bytes of a trace in which its last judgement is looked for


def runs_below(base: Path) -> list[Path]:
    """Run directories in `base` and in its comparisons; those that links lead out of it are none of it."""
    return [folder for folder in _folders(base) if has(folder, "settings.toml")]


def find(base: Path, name: str, file: str) -> Path | None:
    """The folder below `base` whose path from there is `name` and that holds `file`; None where there is none.

    It is looked for among those that are there, so no name leads anywhere else.
    """
    known = (folder for folder in _folders(base) if folder.relative_to(base).as_posix() == name)
    return next((folder for folder in known if has(folder, file)), None)


def has(folder: Path, file: str) -> bool:
    """Whether that file is in the folder; of one that may not be looked into, such as another user's, it is not."""
    try:
        return (folder / file).is_file()
    except OSError:
        return False


def run_list(base: Path) -> list[dict[str, Any]]:
    """Runs, the newest first, and comparisons with their runs."""
    rows = [row for folder in sorted(base.iterdir()) if (row := _row(base, folder))] if base.is_dir() else []
    return sorted(rows, key=lambda row: str(row.get("created", "")), reverse=True)


def look(base: Path) -> object:
    """What is another whenever the list is: the files of runs, and what says how far comparisons are."""
    seen: list[object] = []
    for folder in _folders(base):
        if has(folder, PLAN):
            ended = sum(1 for _ in (folder / "runs").glob(f"*/{FINISHED}"))
            seen.append((str(folder), ended, stat_of(folder / PLAN), stat_of(folder / TABLE)))
        if has(folder, "settings.toml"):
            seen.append((str(folder), stamp(folder)))
    return seen


def stamp(folder: Path) -> tuple[tuple[int, int], ...]:
    """What changes whenever something of the run in `folder` does: sizes and times of its files, and its process."""
    return (int(alive(folder)), 0), *(stat_of(folder / name) for name in WATCHED)


def stat_of(file: Path) -> tuple[int, int]:
    """Size and time of a file; -1 and 0 where it is not there."""
    try:
        status = file.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _folders(base: Path) -> Iterator[Path]:
    """Folders that may be runs or comparisons: in `base`, and the runs of comparisons."""
    for folder in sorted(base.iterdir()) if base.is_dir() else []:
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            yield folder
            if has(folder, PLAN):
                inner = folder / "runs"
                for path in sorted(inner.glob("*/*/")):
                    if not (path.is_symlink() or path.parent.is_symlink() or inner.is_symlink()):
                        yield path


def _row(base: Path, folder: Path) -> dict[str, Any] | None:
    if folder.is_symlink() or folder.name.startswith("."):
        return None
    if has(folder, "settings.toml"):
        return row_of(base, folder)
    return _comparison(base, folder) if has(folder, PLAN) else None


def row_of(base: Path, folder: Path) -> dict[str, Any]:
    """One run of the list; of one that is damaged, the sentence that says so."""
    row: dict[str, Any] = {"kind": "run", "id": folder.relative_to(base).as_posix(), "name": folder.name}
    try:
        run = RunDirectory.open(folder, strict=False)
        values = with_defaults(run.settings)
        row |= {
            "state": run_state(run)["state"],
            "arm": str(values["arm"]),
            "budget": budget_words(values, None),
            "created": run.environment.get("created", ""),
        }
        judge, settings = _last_judge(run.trace), make_settings(run.settings)
        of = settings.evaluations if counted(settings) else None
        return row | progress(settings, [judge] if judge else []) | {"of": of}
    except (SelfPrunerError, OSError, TypeError, ValueError) as error:
        return {"state": "unknown", **row, "budget": str(error)}


def _last_judge(trace: Path) -> dict[str, Any]:
    """The last judgement of a trace, from its end; empty where there is none."""
    if not trace.is_file():
        return {}
    size = trace.stat().st_size
    with open(trace, "rb") as file:
        file.seek(max(0, size - TAIL))
        first = file.readline() if size > TAIL else b""
    found = read_lines(trace, max(0, size - TAIL) + len(first)).last_judge
    return found or read_lines(trace).last_judge


def _headline(folder: Path) -> str:
    """What a comparison comes to, as its table says first; empty where there is none yet."""
    try:
        with open(folder / TABLE, encoding="utf-8") as file:
            return file.readline().removeprefix("- ").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _comparison(base: Path, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "comparison", "id": folder.relative_to(base).as_posix(), "name": folder.name}
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        arms = plan["arms"].split(",") if isinstance(plan["arms"], str) else [str(arm) for arm in plan["arms"]]
        searching = [arm for arm in arms if ARMS[re.split("[:+]", arm)[0]].searches]
        each = len(arms) + len(searching) * (len(plan["seeds"]) - 1)  # closed forms are the same for all seeds
        planned = each * len(plan["sparsities"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return row | {"arms": [], "planned": 0, "finished": 0, "runs": [], "sentence": f"{PLAN} is damaged: {error}"}
    runs = [row_of(base, path) for path in runs_below(base) if path.is_relative_to(folder)]
    finished = sum(1 for _ in (folder / "runs").glob(f"*/{FINISHED}"))
    return row | {"arms": arms, "planned": planned, "finished": finished, "runs": runs, "sentence": _headline(folder)}
