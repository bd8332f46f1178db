"""What goes wrong in a fork: an end at a given event or moment, a clock that jumps, a look at what is written where.

An event is a place where a kill could leave something half done: a file opened to be written, written, forced to the
disk, renamed or removed; a statement of SQLite that changes a database; a process started; a phase begun; a report of
progress. They are counted, so that the n-th is the same place each time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.campaign import stand_ins
from tests.campaign.statements import watch_databases

BEGIN = "begin"  # the phase before the first one that the program names
CHANGES = ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE", "CREATE", "REPLACE", "PRAGMA WAL_CHECKPOINT")
FILES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect"}
# Functions that are phases of their own, beside those that the screen names: where they are looked up, and the phase.
STAGES = (
    ("self_pruner.agent.session", "run_search", "search"),
    ("self_pruner.agent.session", "choose", "after the search"),
    ("self_pruner.agent.session", "write_report", "report"),
    ("self_pruner.tools.export.publish", "verify", "verification"),
)


@dataclass(frozen=True)
class Point:
    """Where one command is ended: at the n-th event of a phase, or so many seconds after the phase began."""

    phase: str
    signal: str  # KILL, TERM, INT
    event: int | None = None
    seconds: float | None = None
    group: bool = False  # the signal goes to its children too, as a terminal's does

    def __str__(self) -> str:
        """In words."""
        where = f"event {self.event}" if self.event is not None else f"{self.seconds:.3f} s"
        return f"{self.signal}{' to all' if self.group else ''} at {where} of {self.phase!r}"


class Events:
    """Counts events by phase, and ends the process where a point says so."""

    def __init__(self, log: Path, point: Point | None = None) -> None:
        """The log gets the counts, for the drawing of points, or the event that was struck."""
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.point = point
        self.phases: list[str] = [BEGIN]
        self.counts: dict[str, int] = {}
        self.began: dict[str, float] = {BEGIN: time.monotonic()}
        self.seconds: dict[str, float] = {}
        self.active = True

    def install(self) -> None:
        """Watch this process."""
        stand_ins.after_fork.append(self.off)
        sys.addaudithook(self._audited)
        for name in ("write", "pwrite", "fsync"):
            self._watch(os, name)
        watch_databases(self._statement)
        self._phases_on_screen()
        for module, name, phase in STAGES:
            self._stage(module, name, phase)
        self._arm(BEGIN)

    def off(self) -> None:
        """No longer: this is a child's process."""
        self.active = False

    def finish(self) -> None:
        """Write the counts."""
        self.active = False
        self._leave(BEGIN)
        os.write(self.log, json.dumps({"counts": self.counts, "seconds": self.seconds}).encode())

    def event(self, what: str) -> None:
        """One event of the phase in hand."""
        if not self.active:
            return
        phase = self.phases[-1]
        number = self.counts[phase] = self.counts.get(phase, 0) + 1
        point = self.point
        if point is not None and (point.phase, point.event) == (phase, number):
            self._strike(what)

    def _strike(self, what: str) -> None:
        assert self.point is not None
        self.active = False
        os.write(self.log, what.encode("utf-8", "replace"))
        number = getattr(signal, f"SIG{self.point.signal}")
        if self.point.group:
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)

    def _arm(self, phase: str) -> None:
        """Start the clock of a point that is a moment, the first time its phase begins."""
        point = self.point
        if point is not None and point.phase == phase and point.seconds is not None and self.active:
            timer = threading.Timer(point.seconds, lambda: self.active and self._strike("a moment"))
            timer.daemon = True
            timer.start()

    def _audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.event(f"open {path}")
        elif name in FILES or name == "subprocess.Popen":
            self.event(f"{name} {arguments[:2]}")

    def _statement(self, sql: str) -> None:
        if sql.lstrip().upper().startswith(CHANGES):
            self.event(f"sqlite: {sql.strip()[:60]}")

    def _watch(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def watched(descriptor: int, *arguments: Any) -> Any:
            if descriptor > 2:
                self.event(f"os.{name}")
            return real(descriptor, *arguments)

        setattr(module, name, watched)

    def _phases_on_screen(self) -> None:
        from self_pruner.agent.view import View

        real = View.phase

        @contextmanager
        def phase(view: Any, name: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
            with self.within(plain(name)), real(view, name, unit) as report:

                def reported(done: int, total: int) -> None:
                    self.event("progress")
                    report(done, total)

                yield reported

        View.phase = phase  # type: ignore[method-assign]

    def _stage(self, module: str, name: str, phase: str) -> None:
        from importlib import import_module

        found = import_module(module)
        real = getattr(found, name)

        def staged(*arguments: Any, **options: Any) -> Any:
            with self.within(phase):
                return real(*arguments, **options)

        setattr(found, name, staged)

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """Events belong to `phase` for as long as the block lasts."""
        self.phases.append(phase)
        first = phase not in self.began
        self.began.setdefault(phase, time.monotonic())
        if first:
            self._arm(phase)
        self.event("begins")
        try:
            yield
        finally:
            self.event("ends")
            self.phases.remove(phase)
            self._leave(phase)

    def _leave(self, phase: str) -> None:
        self.seconds.setdefault(phase, time.monotonic() - self.began[phase])


def plain(name: str) -> str:
    """A phase's name without what differs between models, texts and places."""
    for word in ("Loading", "Reporting text", "Dense targets"):
        if name.startswith(word):
            return word
    return name.partition(" (")[0]


def draw(surveys: dict[str, Any], rng: random.Random, moments: float = 0.3) -> Point:
    """A point in a phase drawn evenly from those that a survey found: each is as likely, however few its events."""
    phase = rng.choice(sorted(surveys["counts"]))
    sort = rng.choice(("KILL", "TERM", "INT"))
    group = rng.random() < 0.3
    if rng.random() < moments or phase == "verification":
        return Point(phase, sort, seconds=round(rng.random() * surveys["seconds"][phase], 4), group=group)
    return Point(phase, sort, event=rng.randint(1, surveys["counts"][phase]), group=group)


def point_of(text: str) -> Point:
    """The point that `written` wrote."""
    return Point(**json.loads(text))


def written(point: Point) -> str:
    """A point as one word of a command line."""
    return json.dumps({name: value for name, value in asdict(point).items() if value is not None})


def jumping_clock(seed: int) -> None:
    """From now on the time of day jumps with every look at it, by up to five years either way."""
    import datetime as module

    rng, real = random.Random(seed), time.time

    def jumped() -> float:
        return real() + rng.uniform(-1.5e8, 1.5e8)

    class Jumping(module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Jumping:
            return cls.fromtimestamp(jumped(), tz)

    time.time = jumped
    time.time_ns = lambda: int(jumped() * 1e9)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__name__", "").startswith("self_pruner"):
            for name, value in list(vars(loaded).items()):
                if value is module.datetime:
                    setattr(loaded, name, Jumping)
