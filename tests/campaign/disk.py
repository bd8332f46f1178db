"""A disk that is full at many sizes: one sentence, nothing half-written, and on again once there is room.

Where this process may mount, the case's folder is a file system of exactly so many bytes, in a mount namespace of its
own; elsewhere no file may grow beyond them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.campaign import forks
from tests.campaign.kills import Survey, Tally
from tests.campaign.scenarios import Scenario, World, differences, fresh, left_behind

NEW_NAMESPACE, PRIVATE, REMOUNT = 0x00020000, (1 << 18) | (1 << 14), 32
ROOM = 1 << 30  # bytes after room was made


def full(world: World, scenario: Scenario, undisturbed: Survey, size: int, say: Callable[[str], None]) -> list[str]:
    """The command on a disk of `size` bytes, then with room; returns what is wrong."""
    wrong: list[str] = in_fork(lambda: _case(world, scenario, undisturbed, size, say))
    return wrong


def in_fork(case: Callable[[], Any]) -> Any:
    """What `case` returns, carried out in a fork, whose mounts nobody else sees; JSON values."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = case()
        except BaseException as error:
            said = [f"the campaign itself: {type(error).__name__}: {error}"]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def _case(world: World, scenario: Scenario, undisturbed: Survey, size: int, say: Callable[[str], None]) -> list[str]:
    world.case.mkdir(exist_ok=True)
    mounted = mount(world.case, size)
    if not mounted:
        fresh(world, scenario)
    ended = forks.call(scenario.words(world), world.case, lambda: _filled_later(None if mounted else size))
    wrong = [ended.fault] if ended.fault else []
    sentence = ended.errors.strip()
    say(f"    {size:,} bytes: status {ended.status}, {sentence[-110:]!r}")
    if ended.status and (not sentence.startswith("error: ") or sentence.count("\n")):
        wrong.append(f"status {ended.status} without one sentence: {sentence[-400:]}")
    anew = False
    if ended.status:
        if mounted:
            mount(world.case, ROOM, REMOUNT)
        anew = not world.runs()  # nothing was searched yet, and what the probes measured is free the second time
        again = forks.call(scenario.again(world), world.case)
        if again.status or again.fault:
            wrong.append(f"with room, status {again.status}, {again.fault}: {again.errors.strip()[-300:]}")
    lines = differences(undisturbed.left, left_behind(world))
    # A cache that found no room costs time and nothing else.
    free = [line for line in lines if line.startswith("missing: cache/") or (anew and "[tokens]" in line)]
    return wrong + [line for line in lines if line not in free]


def _filled_later(limit: int | None) -> None:
    """The disk has room while the run is placed, which would be refused else; others take it afterwards."""
    from self_pruner.agent.prepare import devices

    room = SimpleNamespace(total=1 << 40, free=1 << 40)
    devices.shutil = SimpleNamespace(disk_usage=lambda place: room)  # type: ignore[assignment]
    if limit is not None:
        _limit(limit)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def mount(folder: Path, size: int, flags: int = 0) -> bool:
    """A file system of `size` bytes on `folder`, seen by this process and its children; False where not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not flags and (libc.unshare(NEW_NAMESPACE) or libc.mount(None, b"/", None, PRIVATE, None)):
        return False
    return not libc.mount(b"none", str(folder).encode(), b"tmpfs", flags, f"size={size}".encode())


def campaign(world: World, scenario: Scenario, undisturbed: Survey, count: int, say: Callable[[str], None]) -> Tally:
    """`count` sizes between nothing and what the undisturbed command takes."""
    tally = Tally()
    total = sum(path.stat().st_size for path in (world.base / f"after-{scenario.name}").rglob("*") if path.is_file())
    for number in range(count):
        size = round(total * (number + 1) / (count + 1)) // 4096 * 4096
        wrong = full(world, scenario, undisturbed, size, say)
        tally.tried["sizes"] += 1
        if wrong:
            tally.faults.append("\n  ".join([f"a disk of {size:,} bytes, {scenario.name}:", *wrong[:8]]))
            say(f"  FAULT {tally.faults[-1]}")
    return tally
