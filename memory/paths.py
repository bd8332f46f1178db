"""Paths as a person writes them; here because every package reads some."""

from __future__ import annotations

from pathlib import Path

from self_pruner.memory.errors import SettingsError


def expanded(path: str | Path) -> Path:
    """The path with a `~` or `~user` at its beginning replaced by the home folder that it stands for.

    Raises:
        SettingsError: nobody knows that folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise SettingsError(
            f"{str(path)!r} begins with {home}, whose home folder is not known: give it in full"
        ) from None
