"""Ends of every kind at random points: kill -9, SIGTERM and Ctrl-C over all phases of every command.

A point is drawn, the command is ended there, and gone on with until it is done. Then everything that it left is
compared with what the undisturbed command left.
"""

from __future__ import annotations

import atexit
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaign import forks
from tests.campaign.faults import Events, Point, draw, point_of, written
from tests.campaign.forks import Ended
from tests.campaign.scenarios import SCENARIOS, Scenario, World, differences, fresh, left_behind, status_of

WEIGHTS = {"run": 6, "compare": 2, "evaluate": 2, "tasks": 2, "export": 1}  # of a hundred points, about so many tenths
SECOND = 0.25  # share of points after which what goes on is ended too
ENDS = {"KILL": (-9,), "TERM": (143,), "INT": (130,)}


@dataclass
class Tally:
    """What was tried and what was found."""

    tried: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Survey:
    """An undisturbed command: its events and seconds by phase, and what it leaves."""

    found: dict[str, Any]
    left: dict[str, object]


def survey(world: World, scenario: Scenario) -> Survey:
    """Carry out a command undisturbed, once watched and once not; both must leave the same."""
    seen = []
    log = world.base / "events.json"
    for _ in range(2):
        fresh(world, scenario)
        ended = forks.call(scenario.words(world), world.case, partial(watched, log, None))
        if ended.status or ended.fault:
            raise RuntimeError(f"{scenario.name}, undisturbed: {ended.status}, {ended.fault}\n{ended.errors[-2000:]}")
        seen.append(left_behind(world))
    if lines := differences(*seen):
        raise RuntimeError(f"{scenario.name}, undisturbed, is not the same twice:\n" + "\n".join(lines))
    kept = world.base / f"after-{scenario.name}"
    if kept.exists():
        shutil.rmtree(kept)
    shutil.copytree(world.case, kept, symlinks=True)
    return Survey(json.loads(log.read_text()), seen[0])


def watched(log: Path, point: Point | None) -> None:
    """Watch this process, which is a fork: end it at the point, or count its events where there is none."""
    events = Events(log, point)
    events.install()
    if point is None:
        atexit.register(events.finish)


def strike(
    world: World, scenario: Scenario, undisturbed: Survey, points: list[Point], say: Callable[[str], None]
) -> list[str]:
    """End the command at the first point, what goes on at the next, and go on to the end; returns what is wrong."""
    fresh(world, scenario)
    wrong: list[str] = []
    log = world.base / "struck.txt"
    words = scenario.words(world)
    for point in points:
        ended = forks.call(words, world.case, partial(watched, log, point))
        struck = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        say(f"    {point}: {struck[:90]!r}, status {ended.status}, {ended.seconds:.1f} s")
        wrong += judged(ended, point, bool(struck))
        if ended.fault:
            say(ended.errors)
        if done(world, scenario, ended):
            break
        words = scenario.again(world)
    else:
        ended = forks.call(words, world.case)
        if ended.status or ended.fault:
            wrong.append(f"went on with status {ended.status}, {ended.fault}: {ended.errors.strip()[-300:]}")
    return wrong + differences(undisturbed.left, left_behind(world))


def judged(ended: Ended, point: Point, struck: bool) -> list[str]:
    """What was wrong with the end itself."""
    wrong = [ended.fault] if ended.fault else []
    if struck and ended.status not in (*ENDS[point.signal], 0):
        wrong.append(f"ended with status {ended.status}: {ended.errors.strip()[-300:]}")
    if not struck and ended.status:
        wrong.append(f"not struck, and status {ended.status}: {ended.errors.strip()[-300:]}")
    return wrong


def done(world: World, scenario: Scenario, ended: Ended) -> bool:
    """Whether nothing is left to go on with."""
    if ended.status == 0:
        return True
    return scenario.name == "run" and bool(world.runs()) and status_of(world.runs()[0])[0] == "finished"


def repeat(world: World, name: str, points: list[str], say: Callable[[str], None]) -> Tally:
    """One case again, as its fault was printed."""
    scenario = SCENARIOS[name]
    if scenario.before:
        survey(world, SCENARIOS[scenario.before])
    wrong = strike(world, scenario, survey(world, scenario), [point_of(text) for text in points], say)
    return Tally(Counter(points=1), faults=wrong)


def campaign(
    world: World, points: int, seed: int, say: Callable[[str], None], whole: Survey, only: tuple[str, ...]
) -> Tally:
    """Draw points and strike them; a fault is said with the words that repeat it."""
    surveys = {"run": whole}
    for name in only:
        if name not in surveys:
            surveys[name] = survey(world, SCENARIOS[name])
        counts = surveys[name].found["counts"]
        say(f"{name}: {sum(counts.values())} events in {len(counts)} phases: {', '.join(counts)}")
    tally = Tally()
    for number in range(points):
        rng = random.Random(f"{seed}/{number}")
        name = rng.choices(list(only), [WEIGHTS[one] for one in only])[0]
        found = surveys[name].found
        chosen = [draw(found, rng)] + ([draw(found, rng)] if rng.random() < SECOND else [])
        say(f"{number}: {name}")
        wrong = strike(world, SCENARIOS[name], surveys[name], chosen, say)
        tally.tried["points"] += 1
        for point in chosen:
            tally.tried[point.signal] += 1
            tally.phases[f"{name}: {point.phase}"] += 1
        if wrong:
            words = " ".join(f"--point '{written(point)}'" for point in chosen)
            again = f"python -m tests.campaign --scenario {name} {words}"
            tally.faults.append("\n  ".join([f"point {number}, {name}: {again}", *wrong[:8]]))
            say(f"  FAULT {tally.faults[-1]}")
    return tally
