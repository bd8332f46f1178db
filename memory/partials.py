"""What is made aside and renamed: named after the process that makes it, so that a killed one's is known and removed.

Nobody can tidy up after kill -9 but whoever comes next, so every name says whose it is, and whoever makes the same
thing again first removes what processes that are gone have left of it. A folder may be shared by several machines,
so a name says the machine too, and each removes its own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOGS = ("-journal", "-wal", "-shm")  # beside a database that is being made
_HERE = re.sub(r"[^A-Za-z0-9]+", "-", platform.node())[:32]  # a container has a name, and processes, of its own


def owner(process: int) -> str:
    """A process of this machine, as names say it."""
    return f"{_HERE}-{process}"


def partial_of(path: Path) -> Path:
    """Where this process makes the file `path`; what others left there when they were killed is removed first."""
    clear_partials(path)
    return path.with_name(f".{path.name}.{owner(os.getpid())}.partial")


def clear_partials(path: Path) -> None:
    """Remove what processes that are gone left of making the file `path`."""
    logs = "|".join(map(re.escape, LOGS))
    ours = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(_HERE)}-(\d+)\.partial(?:{logs})?")
    with suppress(OSError):  # a folder that is not there, or not ours to tidy
        for found in list(path.parent.iterdir()):
            match = ours.fullmatch(found.name)
            if match and not lives(int(match[1])):
                found.unlink(missing_ok=True)


@contextmanager
def scratch(name: str, where: Path | None = None) -> Iterator[str]:
    """A folder for temporary files, gone with the block; what killed processes left of theirs is removed first.

    Args:
        name: of what is made in it.
        where: the folder that it is in; None for the system's own of temporary files.

    Raises:
        OSError: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if where is None else where
    prefix = f"self-pruner-{name}-"
    ours = re.compile(rf"{re.escape(prefix)}{re.escape(_HERE)}-(\d+)-.+")
    with suppress(OSError):
        for found in list(place.iterdir()):
            match = ours.fullmatch(found.name)
            if match and not lives(int(match[1])) and found.lstat().st_uid == os.getuid():
                shutil.rmtree(found, ignore_errors=True)  # which follows no links
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{owner(os.getpid())}-", dir=place) as folder:
        yield folder


def lives(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's, or no number that a process can have
        return True
    return True
