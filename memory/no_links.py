"""Writing only where one means to: a symbolic link that somebody planted in a folder is refused, never followed.

A run directory may come from a stranger, with a link in the place of a file that is going to be written.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from self_pruner.memory.errors import SelfPrunerError


class LinkError(SelfPrunerError):
    """Something that is no plain file lies where one is to be written."""

    def __init__(self, path: Path, what: str = "a symbolic link") -> None:
        """`path` is where the file should be, `what` is there instead."""
        super().__init__(f"{path} is {what}, which is not written to: remove it or put a plain file there")


def open_to_write(path: Path, flags: int) -> int:
    """A descriptor of the plain file at `path`, made where there is none.

    Args:
        path: the file; a link in its last part is refused, links among its folders are the user's.
        flags: how it is opened, as for `os.open`; O_CREAT is understood.

    Raises:
        LinkError: a link, a folder, a pipe or a device is there.
        OSError: no permission, no room or no such folder.
    """
    if path.is_symlink():
        raise LinkError(path)
    # O_NOFOLLOW for a link that comes in between; O_NONBLOCK because a pipe would be waited for
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LinkError(path, "no plain file")
    return descriptor


def refuse_link(path: Path) -> None:
    """Raise LinkError where `path` is a link; for files that a library opens, such as SQLite's."""
    if path.is_symlink():
        raise LinkError(path)
