"""What whoever writes prompts asks for: a set to begin with, what differs between two, what a template may use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.files import USUAL, available_sets
from self_pruner.prompts.sample import sample_variables
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.variables import Kind

EXAMPLE = 60  # characters of an example value


def open_set(text: str, base: str = USUAL) -> PromptSet:
    """The set of that name, or the folder of that name over the set `base`, whose files stand where it has none.

    Raises:
        SettingsError: it is neither.
        PromptError: a file of it is wrong.
    """
    if text in available_sets() or not Path(text).is_dir():
        return PromptSet(text)
    return PromptSet(base, Path(text))


def new_set(folder: Path, origin: str) -> PromptSet:
    """A folder with the files of a set, to be changed.

    Raises:
        SettingsError: there is something of that name, or it cannot be made.
    """
    prompts = open_set(origin)
    if folder.exists():
        raise SettingsError(f"{folder} is there already: name a folder that is not")
    try:
        prompts.copy_to(folder)
    except OSError as error:
        raise SettingsError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return prompts


def digest(prompts: PromptSet) -> str:
    """What tells a set from any other: 12 hexadecimal digits of the SHA-256 of its files."""
    told = hashlib.sha256()
    for name, text in prompts.files.items():
        told.update(f"{name} {len(text)}\n{text}".encode())
    return told.hexdigest()[:12]


def shows_user_notes(prompts: PromptSet) -> bool:
    """Whether a brain that reads this set is shown what a person told the run."""
    return any("user_notes" in text for text in prompts.files.values())


def differences(one: PromptSet, other: PromptSet, names: tuple[str, str]) -> list[str]:
    """What differs between the files of two sets, as a unified diff; [] where nothing does."""
    lines: list[str] = []
    for file in sorted({*one.files, *other.files}):
        before, after = (prompts.files.get(file, "").splitlines() for prompts in (one, other))
        lines += unified_diff(before, after, f"{names[0]}/{file}", f"{names[1]}/{file}", lineterm="")
    return lines


def variables_of(kind: Kind, prompts: PromptSet) -> list[tuple[str, str, str]]:
    """What a template may use in a turn of that kind: name, type, and the value in a made-up turn."""
    values = sample_variables(kind, prompts.actions).for_turn()
    return [row for name in sorted(values) for row in _rows(name, values[name])]


def _rows(name: str, value: Any) -> Iterator[tuple[str, str, str]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _rows(f"{name}.{field.name}", getattr(value, field.name))
        return
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        yield name, f"list of {len(value)}", ""
        for field in fields(value[0]):
            yield from _rows(f"{name}[0].{field.name}", getattr(value[0], field.name))
        return
    shown = str(list(value)) if isinstance(value, tuple) else str(value)
    kind = "list" if isinstance(value, tuple) else type(value).__name__
    yield name, kind, shown if len(shown) <= EXAMPLE else shown[: EXAMPLE - 3] + "..."
