"""Main memory that this process can have: the machine's, or what the limit of a container leaves of it.

Linux counts a container's memory in control groups, of the first version or the second. What it tells of the machine
leaves them out, and a process that goes beyond its limit is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Bytes."""

    total: int
    free: int  # with what file caches give back


def main_memory(root: Path = Path("/")) -> MainMemory:
    """The least of the machine and of every control group that this process is in.

    Args:
        root: of the file system in which the system's files are looked for.
    """
    machine = psutil.virtual_memory()
    found = [MainMemory(int(machine.total), int(machine.available))]
    folders: list[Path] = []
    with suppress(OSError, ValueError):
        folders += _groups(root)
    for folder in folders:
        with suppress(OSError, ValueError):  # no limit is set, or none of this kind
            found.append(_limit(folder))
    return MainMemory(min(one.total for one in found), min(one.free for one in found))


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups of memory, each with its parents as far as they can be seen.

    Raises:
        OSError: this system has no control groups.
        ValueError: what it says of them cannot be read.
    """
    own = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    paths = {}  # by the kind of file system
    for line in own:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        mounted, _, kind = line.partition(" - ")
        system, *_, options = kind.split(" ")
        if system not in paths or (system == "cgroup" and "memory" not in options.split(",")):
            continue
        _, _, _, top, place, *_ = mounted.split(" ")
        folder = root / place.lstrip("/")
        inside = PurePosixPath(paths[system])
        below = inside.relative_to(top).parts if inside.is_relative_to(top) else ()
        if ".." in below:  # a container sees its own group alone
            below = ()
        yield from (folder.joinpath(*below[:depth]) for depth in range(len(below) + 1))


def _limit(folder: Path) -> MainMemory:
    """The limit of one group and what is left of it.

    Raises:
        OSError: it has no files of memory.
        ValueError: it has no limit.
    """
    newer = (folder / "memory.max").exists()
    limit, used = ("memory.max", "memory.current") if newer else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    caches = ("inactive_file", "active_file") if newer else ("total_inactive_file", "total_active_file")
    total = int((folder / limit).read_text(encoding="utf-8"))
    taken = int((folder / used).read_text(encoding="utf-8"))
    for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(" ")
        if name in caches:  # what was read twice is active, and given back all the same
            taken -= int(value)
    return MainMemory(total, min(total, max(0, total - taken)))
