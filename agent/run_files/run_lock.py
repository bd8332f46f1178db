"""One process at a time: a lock on a run that the system itself drops with the process, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.no_links import open_to_write

INSTANT = 0.05  # seconds in which whoever only asks whether a run is held lets go of it


class RunLock:
    """A held lock on the run in `folder`; it stays with the folder when that is renamed."""

    def __init__(self, folder: Path, wait: bool = False) -> None:
        """Takes the lock and leaves our process number in it, for whoever finds the run in use.

        Args:
            folder: what is locked.
            wait: whether to wait for another process that holds it, where it is held for moments.

        Raises:
            RunDirectoryError: another process holds it, and it is not waited for.
            RunDirectoryError: no permission, or a file system without locks.
            LinkError: a link lies in the place of the lock.
        """
        try:
            # never deleted: a lock on a deleted file excludes nobody
            descriptor = open_to_write(folder / ".lock", os.O_RDWR)
        except OSError as error:
            raise RunDirectoryError(f"cannot lock the run {folder}: {error.strerror}") from error
        try:
            if wait:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            else:
                _take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace")
            os.close(descriptor)
            raise RunDirectoryError(
                f"the run {folder} is in use by process {holder}: wait for it or stop it"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise RunDirectoryError(f"cannot lock the run {folder}: {error.strerror}") from error
        self._descriptor = descriptor

    def close(self) -> None:
        """Lets another process have the run."""
        os.close(self._descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process works on the run in `folder`, here or on a machine that shares it; it is not disturbed."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # never locked
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks, on which no run can be
        return False
    finally:
        os.close(descriptor)
    return False


def _take(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(INSTANT)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
