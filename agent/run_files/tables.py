"""The files of a run that hold one table: `settings.toml` as it is written, and TOML and JSON as they are read.

Where `settings.toml` is missing there is no run, and what is there instead is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from self_pruner.memory.errors import RunDirectoryError, SettingsError

BELOW = ("*", "*/*", "runs/*/*")  # where runs are below the folder of all, an arm's, or a comparison
NAMED = 3  # runs


def settings_file(settings: Mapping[str, object]) -> str:
    """The content of `settings.toml`, without the settings that are None, for TOML has no null.

    Raises:
        SettingsError: a text that UTF-8 cannot hold.
    """
    text = tomli_w.dumps({name: value for name, value in settings.items() if value is not None})
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n")
        raise SettingsError(
            f"the setting {text.splitlines()[line]!r} is not valid Unicode and cannot be saved with the run"
        ) from error
    return text


def read_table(path: Path, parse: Any) -> dict[str, Any]:
    """A file of a run as a table, by `tomllib.loads` or `json.loads`.

    Raises:
        RunDirectoryError: it is missing, damaged or cannot be read, or holds no table.
    """
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"cannot read {path}: it is no file")
    try:
        table = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # undecodable or too deep, and what both parsers raise
        raise RunDirectoryError(f"{path} is damaged: {error}") from error
    if not isinstance(table, dict):
        raise RunDirectoryError(f"{path} is damaged: it holds no table")
    return table


def instead_of_run(path: Path) -> str:
    """What is at a path without a `settings.toml`, as the end of a sentence; of runs below it the newest are named."""
    if not path.is_dir():
        return "it is no folder" if path.exists() else "there is no such folder"
    found = {file.parent: file.stat().st_mtime for places in BELOW for file in path.glob(f"{places}/settings.toml")}
    newest = sorted(found, key=lambda run: -found[run])
    if not newest:
        return "it has no settings.toml"
    return f"it is a folder of runs, so name one, such as {' or '.join(map(str, newest[:NAMED]))}"
