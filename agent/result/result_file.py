"""`result.json`: written as soon as a run has chosen, and again after every step that follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from self_pruner.agent.result.outcome import Outcome, Recalibration, fault_of
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory
from self_pruner.agent.run_files.steering import what_next
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError, SelfPrunerError, SettingsError
from self_pruner.memory.read_only import read_rows

GIVE_UP = "--without-recalibration"  # an option of `resume`


def write_outcome(outcome: Outcome, run: Path) -> None:
    """Write the result of a run, as far as it is known."""
    atomic_write(run / RESULT, outcome.model_dump_json(indent=2) + "\n")


def read_outcome(run: Path) -> Outcome | None:
    """The result of a run, as far as it is known; None where nothing is yet.

    Raises:
        RunDirectoryError: the file is damaged or cannot be read.
    """
    path = run / RESULT
    if not path.is_file():
        return None
    try:
        outcome = Outcome.model_validate_json(path.read_text(encoding="utf-8"))
        if fault := fault_of(outcome):
            raise ValueError(fault)
        return outcome
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def result_of(run: RunDirectory) -> Outcome:
    """The result of a run that is finished, or was stopped after its choice.

    Raises:
        RunDirectoryError: it has none yet; the sentence says what to do about it.
    """
    outcome = read_outcome(run.path) if run.status != "running" else None
    if outcome is None:
        raise RunDirectoryError(f"the run {run.path} has no result yet; {what_next(run.path)}")
    return outcome


def check_candidate(run: RunDirectory, name: str | None) -> None:
    """Refuse a candidate that the run does not have; a run without a file of its own is left to its memory.

    Raises:
        SettingsError: it has none of that name; the sentence says which it has.
        MemoryFileError: its file is damaged.
    """
    if name is None or not run.records.is_file():
        return
    known = [row["id"] for row in read_rows(run.records, run.id)["candidate"]]
    if known and name not in known:
        there = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
        raise SettingsError(f"there is no candidate {name!r} in this run; it has {there}")


def still_to_do(settings: Settings, outcome: Outcome) -> list[str]:
    """The steps that a run with these settings takes and whose figures its result has not yet, in order."""
    steps = {
        "recalibration": settings.recalibrates and outcome.recalibration is None,
        "export": settings.export and outcome.verified is None,
        "tasks": settings.tasks and outcome.tasks is None,
    }
    return [step for step, missing in steps.items() if missing]


def known_result(run: Path, view: View) -> Outcome | None:
    """The result of a run that had chosen when it was stopped; a damaged one is said and as good as none."""
    try:
        return read_outcome(run)
    except RunDirectoryError as error:
        view.warn(f"{error}; it is made anew")
        return None


def has_result(run: Path) -> bool:
    """Whether there is a result, one that can be read."""
    try:
        return read_outcome(run) is not None
    except RunDirectoryError:
        return False


def give_up_recalibration(run: RunDirectory, settings: Settings) -> None:
    """Write into the result of a stopped run that its user ends it without the recalibration that it asked for.

    Raises:
        SettingsError: it has not chosen yet, or has no recalibration left to do.
    """
    outcome = read_outcome(run.path)
    if outcome is None:
        raise SettingsError(f"{GIVE_UP} is for a run that has chosen its result, and this one has not: leave it out")
    if "recalibration" not in still_to_do(settings, outcome):
        raise SettingsError(f"{GIVE_UP}: this run has no recalibration left to do: leave it out")
    searched, failure = outcome.holdout.get(outcome.candidate), "it was asked for, and given up by the user"
    facts = Recalibration(searched=searched, recalibrated=None, failure=failure, given_up=True)
    write_outcome(outcome.model_copy(update={"recalibration": facts}), run.path)


@contextmanager
def step(name: str, run: RunDirectory) -> Iterator[None]:
    """A step after the choice: where it fails, the run has its result all the same, and how it goes on is said.

    Raises:
        RunDirectoryError: a sentence, for whatever a machine may lack or a library refuse.
    """
    try:
        yield
    except BrokenPipeError:  # whoever reads the output has gone
        raise
    except (SelfPrunerError, MemoryError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or "out of memory"
        path = run.path
        otherwise = f", or: {own_command('export', path, '--output', 'FOLDER')}" if name == "export" else ""
        if name == "recalibration":
            otherwise = f", or end the run without it: {own_command('resume', path, GIVE_UP)}"
        raise RunDirectoryError(
            f"the {name} failed: {reason}; the result so far is in {path / RESULT} and {run.report}. "
            f"Go on with: {own_command('resume', path)}{otherwise}"
        ) from error
