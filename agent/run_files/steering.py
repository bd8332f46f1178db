"""What a person says to a run from outside: notes that its brain reads, and the request to pause or to stop.

Both are files in the run's directory. So they reach a run on another machine that shares the folder, and no process is
signalled by a number that may be another one's by now. Whether anybody holds the run, its lock says. A request is meant
for whoever holds the run when it is made: it is forgotten when a run begins, goes on or ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from self_pruner.agent.run_files.atomic_write import WriteError, atomic_write
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory
from self_pruner.agent.run_files.run_lock import is_held
from self_pruner.agent.run_files.trace import read_trace
from self_pruner.agent.settings.meaning import is_brain_asked
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from self_pruner.memory.no_links import open_to_write
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import shows_user_notes
from self_pruner.tools.text.printable import escaped
from self_pruner.tools.text.redaction import redact

NOTES, REQUEST = "notes.jsonl", "request.json"
LONGEST, MOST = 240, 100  # characters of a note, notes of a run
SHOWN = 3  # notes in a prompt, the newest
LARGEST = 1 << 18  # bytes that are read of either file
SECONDS = 0.5  # between two looks at a request

Request = Literal["pause", "stop"]


class Note(BaseModel):
    """What a person told a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1, max_length=LONGEST)
    created: str  # when, ISO 8601


def tell(path: Path, text: str) -> Note:
    """Append a note to those of the run at `path`, and force it to the disk.

    Raises:
        SettingsError: the text is empty, too long or cannot be printed.
        RunDirectoryError: there is no run, its search is over, or nothing in it would read the note.
        RunDirectoryError: it has as many notes as a run takes.
        WriteError: no permission or no room.
    """
    note = Note(text=checked(text), created=datetime.now().astimezone().isoformat(timespec="seconds"))
    run = RunDirectory.open(path, strict=False)
    if run.status == "finished":
        raise RunDirectoryError(f"the run {path} is finished: nobody would read the note")
    if comparison_of(path):
        raise RunDirectoryError(f"the run {path} is of a comparison: a note would favour its arm")
    if not asks_brain(settings := make_settings(run.settings)):
        who = (
            "asks no brain" if settings.reads else f"has the control {settings.brain} for a brain, which reads nothing"
        )
        raise RunDirectoryError(f"the run {path} {who}: nobody would read the note")
    if searched(run):
        raise RunDirectoryError(f"the search of the run {path} is over: nobody would read the note")
    if not shows_user_notes(PromptSet("default", run.prompts)):
        raise RunDirectoryError(f"the prompts of the run {path} show no notes (user_notes): nobody would read it")
    try:
        _append(path / NOTES, note)
    except OSError as error:
        raise WriteError(f"cannot write {path / NOTES}: {error.strerror}") from error
    return note


def comparison_of(run: Path) -> Path | None:
    """The comparison that a run is one of: its arms differ in nothing but what they are compared in."""
    above = run.resolve().parents[2:3]  # COMPARISON/runs/ARM/RUN
    return next((folder for folder in above if (folder / "plan.json").is_file()), None)


def searched(run: RunDirectory) -> bool:
    """Whether the search of a run is over, so that its brain is asked nothing more."""
    if (run.path / RESULT).exists():
        return True
    steps = read_trace(run.trace) if run.trace.exists() else []
    return any(record.kind == "judge" and record.stop for record in steps[-1:])


def asks_brain(settings: Settings) -> bool:
    """Whether a run with these settings ever has a brain that reads decide anything; scripted controls do not read."""
    return settings.reads and is_brain_asked(settings)


def checked(text: str) -> str:
    """The text of a note as one line without keys; raises SettingsError."""
    line = redact(" ".join(text.split()))
    if not line:
        raise SettingsError('the note is empty: say what the brain should read, such as "keep layer 0 whole"')
    if escaped(line) != line:
        raise SettingsError("the note holds characters that cannot be printed: write it in plain text")
    if len(line) > LONGEST:
        raise SettingsError(f"the note has {len(line)} characters, and a run takes at most {LONGEST}: say it shorter")
    return line


def read_notes(folder: Path) -> list[Note]:
    """What the run in `folder` was told, in order; lines that are no notes are left out."""
    found = []
    for line in _content(folder / NOTES).split(b"\n"):
        with suppress(ValidationError):
            found.append(Note.model_validate_json(line))
    return found[:MOST]


def _append(path: Path, note: Note) -> None:
    descriptor = open_to_write(path, os.O_RDWR | os.O_APPEND)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two may tell it something at a time
        if len(read_notes(path.parent)) >= MOST or os.fstat(descriptor).st_size >= LARGEST // 2:
            raise RunDirectoryError(f"the run {path.parent} was told {MOST} notes, and takes no more")
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a power cut
        os.write(descriptor, b"\n" * torn + note.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- how far it is -------------------------------------------------------------------------------------------------


def to_go_on(path: Path) -> str | None:
    """The command with which an unfinished run goes on; None where somebody carries it out and it does not wait."""
    if not is_held(path):
        return own_command("resume", comparison_of(path) or path)
    return own_command("pause", path, "--off") if requested(path) == "pause" else None


def what_next(path: Path) -> str:
    """The command that an unfinished run suggests, in words."""
    if command := to_go_on(path):
        return f"{'it is paused; ' if is_held(path) else ''}go on with: {command}"
    return f"it goes on: {own_command('watch', path)}"


# --- to pause and to stop ------------------------------------------------------------------------------------------


def request(path: Path, wanted: Request | Literal["go on"]) -> str:
    """Ask whoever carries out the run at `path` to pause before its next turn, to go on, or to stop.

    Returns:
        What will happen, in a sentence.

    Raises:
        RunDirectoryError: there is no run, nobody carries it out, or it was not asked to pause.
        WriteError: no permission or no room.
    """
    run = RunDirectory.open(path, strict=False)
    again = own_command("resume", comparison_of(path) or path)
    if run.status == "finished":
        raise RunDirectoryError(f"the run {path} is finished")
    if run.status != "running" or not is_held(path):
        raise RunDirectoryError(f"the run {path} is not running: {again} goes on with it")
    known = requested(path)
    if wanted == "stop" or known == "stop":
        if known != "stop":
            _write(path, "stop")
        return f"{path} stops after the step in hand. Go on with: {again}"
    if wanted == "pause":
        _write(path, "pause")
        return f"{path} waits before its next turn. Go on with: {own_command('pause', path, '--off')}"
    if known is None:
        raise RunDirectoryError(f"the run {path} was not asked to pause")
    forget_request(path)
    return f"{path} goes on."


def requested(folder: Path) -> Request | None:
    """What the run in `folder` is asked to do; None where that is nothing or cannot be read."""
    with suppress(ValueError, AttributeError, RecursionError):
        wanted = json.loads(_content(folder / REQUEST) or b"{}").get("request")
        return wanted if wanted in get_args(Request) else None
    return None


def forget_request(folder: Path) -> None:
    """Take back what was asked, if anything was."""
    with suppress(OSError):  # as a rule there is none
        (folder / REQUEST).unlink()


def wait_while_paused(folder: Path, over: Callable[[], bool], view: View) -> float:
    """Returns once the run in `folder` is not asked to pause, or `over`: after how many seconds."""
    if requested(folder) != "pause" or over():
        return 0.0
    start = time.perf_counter()
    view.line(f"Paused. Go on with: {own_command('pause', folder, '--off')}", "yellow", whole=True)
    while requested(folder) is not None and not over():  # asked to stop, it waits until that is heard
        time.sleep(SECONDS)
    if not over():
        view.line("Going on.")
    return time.perf_counter() - start


def _write(folder: Path, wanted: Request) -> None:
    atomic_write(folder / REQUEST, json.dumps({"request": wanted}) + "\n")


def _content(path: Path) -> bytes:
    """The beginning of a file; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST)
    except OSError:
        return b""
