"""Writing a file so that a reader, or a run killed at any moment, finds the old text or the new one, never a part."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.partials import partial_of


class WriteError(SelfPrunerError):
    """A file could not be written; the one that was there before is untouched."""


def atomic_write(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 beside `path`, forces it to the disk, then renames it into place.

    Raises:
        WriteError: no permission, no room, or no such folder; `path` is as it was and nothing is left beside it.
    """
    partial = partial_of(path)
    try:
        partial.unlink(missing_ok=True)  # left by a process of our number, or a link that would be written through
        with open(partial, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with suppress(OSError):  # it may never have come to be
            partial.unlink()
        if isinstance(error, OSError):
            raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Forces a folder's list of names to the disk, without which a rename may not survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
