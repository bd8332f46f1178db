"""How an exported folder gets its name: written as `<folder>.partial`, renamed once it is known to be good.

A process may be killed at any point. Then there is no folder of the final name that is not whole and verified, and what
is left is recognised by the mark in it and cleared by the next export; a stranger's folder never is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from self_pruner.memory.errors import ExportError
from self_pruner.memory.paths import numbered
from self_pruner.tools.text.quantities import size

UNFINISHED = ".unfinished-export"  # the mark; it goes last, so that remains of remains are recognised too


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to be filled, which gets its name at the end of the block; of a block that raises nothing is left.

    Args:
        folder: the name, an absolute path.
        replace: whether something of that name may be there, which then gives way.

    Raises:
        ExportError: something is there, or it cannot be written.
    """
    if os.path.lexists(folder) and not replace:
        raise ExportError(f"{str(folder)!r} exists already; name a folder that does not.")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        if os.path.lexists(partial):
            if not _is_ours(partial):
                raise ExportError(f"{str(partial)!r} is in the way and was not left by an export; move it elsewhere.")
            clear(partial)
        partial.mkdir(parents=True)
        (partial / UNFINISHED).touch()
    except OSError as error:
        raise ExportError(f"Nothing can be written beside {str(folder)!r}: {system_reason(error)}.") from error
    try:
        yield partial
        give_name(partial, folder, replace=replace)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"The checkpoint could not be written to {str(folder)!r}: {system_reason(error)}.") from error
    finally:
        with suppress(OSError):  # the next export clears it
            clear(partial)


def flush(partial: Path) -> None:
    """Force every file to the disk, where a late 'disk full' shows."""
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def give_name(partial: Path, folder: Path, *, replace: bool) -> None:
    """Rename a folder that is whole and verified to its name, with `replace` over what has it.

    What is replaced gets the mark first, so that the next export clears it where this one is killed, and nothing else.
    """
    old = _beside(folder, "replaced")
    if replace:
        clear(old)  # of an export that was killed here
        if folder.is_dir() and not folder.is_symlink():
            (folder / UNFINISHED).touch()
        if os.path.lexists(folder):
            os.rename(folder, old)
    os.rename(partial, folder)
    (folder / UNFINISHED).unlink()
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if replace:
        clear(old)


def set_aside(partial: Path, folder: Path) -> Path:
    """Keep a folder that is not what it should be as `<folder>.failed`, in the place of an earlier one."""
    failed = _beside(folder, "failed")
    clear(failed)
    os.rename(partial, failed)
    return failed


def clear(path: Path) -> None:
    """Delete what there is at `path`, if anything: a link without what it leads to, a folder with its mark last."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        for inner in path.iterdir():
            if inner.name == UNFINISHED:
                continue
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner)
            else:
                inner.unlink()
        (path / UNFINISHED).unlink(missing_ok=True)
        path.rmdir()


def check_room(path: Path, needed: int) -> None:
    """Refuse before the long write of `path` what cannot fit: so many bytes.

    Raises:
        ExportError: says how much is needed and how much there is.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ExportError(
            f"The checkpoint needs {size(needed)}, and the disk of {str(path.parent)!r} has {size(free)} left."
        )


def system_reason(error: Exception) -> str:
    """What the system said, without paths and numbers that say nothing to a person."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _beside(folder: Path, ending: str) -> Path:
    """`<folder>.<ending>`, with a number where something is there that no export left."""
    names = numbered(folder.with_name(f"{folder.name}.{ending}"))
    return next(path for path in names if not os.path.lexists(path) or _is_ours(path))


def _is_ours(path: Path) -> bool:
    """Whether a folder has the mark of an export, or nothing at all yet."""
    if path.is_symlink() or not path.is_dir():
        return False
    return (path / UNFINISHED).is_file() or not any(path.iterdir())
