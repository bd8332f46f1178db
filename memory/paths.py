"""Paths as a person writes them, and new ones beside what is there; here because every package has some."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
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


def numbered(path: Path) -> Iterator[Path]:
    """The path, then with `-2`, `-3`, ... after its name: whoever makes a new one takes the first that is not taken.

    Between a look and the making another process may take it, so that it is taken is told by what makes it.
    """
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in count(2))


def new_folder(path: Path) -> Path:
    """Make a folder that nobody else has made, named so or with a number; its parents are made where there are none.

    Raises:
        OSError: it cannot be made.
    """

    def made(found: Path) -> bool:
        try:
            found.mkdir()
        except FileExistsError:
            return False
        return True

    path.parent.mkdir(parents=True, exist_ok=True)
    return next(filter(made, numbered(path)))
