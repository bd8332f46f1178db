"""The files of a prompt set on disk: read once, each inside its own folder, `set.toml` checked word by word."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from self_pruner.memory.errors import SelfPrunerError, SettingsError, meant
from self_pruner.prompts.variables import ACTIONS, KINDS, Action

SETS = Path(__file__).parent
SETTINGS = "set.toml"
USUAL = "terse"  # the set of the usual arm, and the one whose files a folder replaces
ENTRIES = ("system.j2", "turn.j2", *(f"ask_{kind}.j2" for kind in KINDS))
LARGEST_FILE = 1 << 17  # bytes


class PromptError(SelfPrunerError):
    """A prompt file is wrong: which, at which line where one is known, and why."""

    def __init__(self, file: Path, line: int | None, sentence: str) -> None:
        """Say `sentence` of a file, and of a line of it where one is known."""
        place = f"{file}, line {line}" if line is not None else f"{file}"
        super().__init__(f"prompt file {place}: {sentence}")
        self.file = file
        self.line = line
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Source:
    """A prompt file as it was at the start of the run."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class SetSettings:
    """The content of `set.toml`."""

    description: str
    actions: tuple[Action, ...]  # what prune_model may be asked for with this set
    hints: bool  # whether measured hints are worked out for the prompt


def available_sets() -> tuple[str, ...]:
    """Names of the prompt sets that come with the program."""
    return tuple(sorted(path.parent.name for path in SETS.glob(f"*/{SETTINGS}")))


def read_set(name: str, overrides: Path | None) -> dict[str, Source]:
    """The files of set `name`, those also found in `overrides` taken from there; a whole set there stands for itself.

    Raises:
        SettingsError: No such set.
        SettingsError: `overrides` is missing, not a folder, or has no prompt files.
        PromptError: A file that leads outside its folder or cannot be read as UTF-8 text.
    """
    known = available_sets()
    if name not in known:
        hint = meant(name, known, 2, before="; ", after="")
        raise SettingsError(f"there is no prompt set {name!r}{hint}; known: {', '.join(known)}")
    sources = _read_folder(SETS / name)
    if overrides is None:
        return sources
    if not overrides.is_dir():
        what = "is not a folder" if overrides.exists() else "does not exist"
        raise SettingsError(f"the folder of prompt files {str(overrides)!r} {what}")
    own = _read_folder(overrides)
    if not own:
        raise SettingsError(
            f"the folder of prompt files {str(overrides)!r} has none; it may hold {', '.join(sorted(sources))}"
        )
    return own if own.keys() >= {*ENTRIES, SETTINGS} else sources | own


def _read_folder(folder: Path) -> dict[str, Source]:
    """Every prompt file of a flat folder; a link that leads elsewhere is refused, used or not."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".j2" or path.name == SETTINGS)
    except OSError as error:
        raise SettingsError(f"the folder of prompt files {str(folder)!r} cannot be read: {error.strerror}") from error
    home = folder.resolve()
    sources = {}
    for path in paths:
        if not path.resolve().is_relative_to(home):
            raise PromptError(
                path, None, "it is a link that leads outside the prompt folder; put the file itself there"
            )
        if not path.is_file():
            raise PromptError(path, None, "it is not a file")
        try:
            if (size := path.stat().st_size) > LARGEST_FILE:
                raise PromptError(path, None, f"it has {size:,} bytes; a prompt file may have {LARGEST_FILE:,}")
            sources[path.name] = Source(path, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise PromptError(path, None, f"it is not UTF-8 text (byte {error.start})") from error
        except OSError as error:
            raise PromptError(path, None, f"it cannot be read: {error.strerror}") from error
    return sources


def parse_settings(source: Source) -> SetSettings:
    """Check `set.toml`; raises PromptError naming the key and what is allowed."""
    try:
        table = tomllib.loads(source.text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        line = int(place[1]) if place else len(source.text.splitlines())  # else: "at end of document"
        raise PromptError(source.path, line, f"syntax error: {error}") from error
    unknown = table.keys() - {"description", "actions", "hints"}
    if unknown:
        raise PromptError(source.path, None, f"unknown key {min(unknown)!r}; allowed: actions, description, hints")
    description, actions, hints = (_value(source, table, key) for key in ("description", "actions", "hints"))
    if not isinstance(description, str):
        raise PromptError(source.path, None, f"'description' must be text, not {description!r}")
    if not isinstance(hints, bool):
        raise PromptError(source.path, None, f"'hints' must be true or false, not {hints!r}")
    if not isinstance(actions, list) or not actions or len(set(map(str, actions))) < len(actions):
        raise PromptError(source.path, None, f"'actions' must be a list without repeats, from: {', '.join(ACTIONS)}")
    for action in actions:
        if action not in ACTIONS:
            raise PromptError(source.path, None, f"unknown action {action!r}; allowed: {', '.join(ACTIONS)}")
    return SetSettings(description, tuple(actions), hints)


def _value(source: Source, table: Mapping[str, object], key: str) -> object:
    if key not in table:
        raise PromptError(source.path, None, f"the key {key!r} is missing")
    return table[key]
