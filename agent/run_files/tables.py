"""The files of a run that hold one table: `settings.toml` as it is written, and TOML and JSON as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from self_pruner.memory.errors import RunDirectoryError, SettingsError


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
