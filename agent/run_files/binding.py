"""What a run is bound to: written into its directory before anything is measured, and held against what is there later.

A run that was stopped and goes on with other weights, another number type, other text or edited settings would finish
with figures that belong together no more than those of two runs do. So it is refused, in a sentence that names what
differs. What changes figures by rounding at the most (a patch of a version) or only what the run starts from (the
memory) is said and not refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.records import Candidate
from self_pruner.memory.store import Memory
from self_pruner.prompts.templates import PromptSet

FILE = "binding.json"
# settings that say where things are and who is told, which no figure depends on: they may be edited
PLACES = ("runs", "memory", "cache", "task_data", "vllm_python", "llama_python")
CHANGEABLE = ("workers", "ray_address", "otel", "otel_content", "track")  # and that a resumed run takes as options
MOVABLE = (*PLACES, *CHANGEABLE)
SAID = ("patch", "memory")  # differences that are said and go on
SAID_OF_A_RESULT = (*SAID, "versions", "device")  # for what is done with a finished run's result
Content = TypeVar("Content", bound=BaseModel)


class Binding(BaseModel):
    """The content of `binding.json`."""

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Any]  # as resolved at the beginning
    latency_table: str | None  # digest of the run's own
    conditions: Conditions


def bind(run: RunDirectory, conditions: Conditions, view: View, said: Collection[str] = SAID) -> None:
    """Write down what a new run is bound to, or hold against it what is there now.

    A run that was begun by a version without this file is left to `check_begun`.

    Args:
        run: the run.
        conditions: what is there now.
        view: where differences that change no figure are said.
        said: the differences that are said only.

    Raises:
        RunDirectoryError: something differs.
        WriteError: a new binding cannot be written.
    """
    begun = read_binding(run)
    if begun is not None:
        refuse(f"the run {run.path} was begun", begun.conditions.differences(conditions), said, view)
    elif not run.checkpoint.exists():
        write_binding(run, conditions)
    else:
        view.warn(
            "this run was begun by a version that did not write down what a run depends on: it goes on only where its "
            "candidates are known under the weights, number type and texts of now; the rest cannot be checked"
        )


def keep_prompts(run: RunDirectory, settings: Settings) -> None:
    """Copy the prompts into a run that has none yet: they are its own from then on, whatever becomes of the files."""
    if not any(run.prompts.glob("*")):
        PromptSet(settings.prompts_of_arm, settings.prompts).copy_to(run.prompts)


def bind_result(run: RunDirectory, view: View) -> Callable[[Conditions], None]:
    """`bind` for what is done with the result of a finished run, where versions and the device are said only."""

    def check(conditions: Conditions) -> None:
        bind(run, conditions, view, SAID_OF_A_RESULT)

    return check


def check_settings(run: RunDirectory, view: View | None) -> None:
    """Refuse settings that were edited since the run was begun; for a person who is told at once, before any loading.

    Args:
        run: the run.
        view: where moved places are said; None where they need not be.

    Raises:
        RunDirectoryError: one differs.
    """
    begun = read_binding(run)
    if begun is None:
        return
    now = _settings(run)
    differences = {
        name: f"{name.replace('_', '-')} {begun.settings.get(name)} (now {now.get(name)} in its settings.toml)"
        for name in {**begun.settings, **now}
        if begun.settings.get(name) != now.get(name)
    }
    if begun.latency_table != _table(run):
        differences["latency table"] = f"another {run.latency_table.name}"
    refuse(f"the run {run.path} was begun", differences, MOVABLE, view)


def check_begun(run: RunDirectory, memory: Memory, conditions: Conditions) -> None:
    """Bind a run that was begun by a version that wrote no binding, where it is safe that it goes on.

    What its candidates are kept under are its weights, number type, calibration and fitness text, importance and
    compensation, so they are found only where these are what they were.

    Raises:
        RunDirectoryError: nothing is found.
    """
    if read_binding(run) is not None:
        return
    if not memory.recall(Candidate, run=run.id, limit=1):
        raise RunDirectoryError(
            f"the run {run.path} cannot go on: none of its candidates is known for the model, text and settings that "
            "are there now"
        )
    write_binding(run, conditions)


def refuse(begun: str, differences: Mapping[str, str], said: Collection[str], view: View | None) -> None:
    """Refuse what differs; what is `said` only is a warning.

    Args:
        begun: who was begun, as the beginning of a sentence.
        differences: in words, by what they are of.
        said: those of them that are said only.
        view: where they are said; None for nowhere.

    Raises:
        RunDirectoryError: something else differs.
    """
    refused = [words for name, words in differences.items() if name not in said]
    if refused:
        raise RunDirectoryError(f"{begun} with {' and '.join(refused)}: put that back or start anew")
    if view is not None:
        for words in differences.values():
            view.warn(f"{begun} with {words}")


def read_binding(run: RunDirectory) -> Binding | None:
    """What the run was bound to; None where it was begun by a version that wrote nothing down, or not yet begun.

    Raises:
        RunDirectoryError: the file is damaged or cannot be read.
    """
    return read_file(run.path / FILE, Binding)


def write_binding(run: RunDirectory, conditions: Conditions) -> None:
    """Bind the run to its settings and to `conditions`."""
    binding = Binding(settings=_settings(run), latency_table=_table(run), conditions=conditions)
    atomic_write(run.path / FILE, binding.model_dump_json(indent=1) + "\n")


def read_file(path: Path, kind: type[Content]) -> Content | None:
    """A file of one of these records; None where there is none.

    Raises:
        RunDirectoryError: it is damaged or cannot be read.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{path} is damaged: it does not say what the run is bound to") from error


def _settings(run: RunDirectory) -> dict[str, Any]:
    """The run's settings without its latency table, which lies in its directory wherever that is moved."""
    return {name: value for name, value in run.settings.items() if name != "latency_table"}


def _table(run: RunDirectory) -> str | None:
    return hashlib.sha256(run.latency_table.read_bytes()).hexdigest() if run.latency_table.is_file() else None
