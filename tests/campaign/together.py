"""Whole runs at once on one memory and one cache, and runs under a clock that jumps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.campaign import forks
from tests.campaign.faults import Point, jumping_clock
from tests.campaign.kills import Survey, Tally, watched
from tests.campaign.scenarios import SCENARIOS, World, differences, fresh, left_behind, status_of


def at_once(world: World, count: int, undisturbed: Survey, say: Callable[[str], None]) -> Tally:
    """`count` runs of one command, started together on one memory.

    Each must be finished, whole and verified, with as many evaluations as alone. What a run finds may differ from what
    it finds alone, because it knows what the others measured; but a profile's score is the same whoever measured it,
    and the memory has no damage.
    """
    fresh(world, SCENARIOS["run"])
    begun = [forks.begin(SCENARIOS["run"].words(world), world.case, name=f"run{number}") for number in range(count)]
    tally = Tally()
    for one in begun:
        ended = forks.wait(one)
        tally.tried[f"{count} at once"] += 1
        if ended.status or ended.fault:
            tally.faults.append(f"{count} at once: status {ended.status}, {ended.fault}: {ended.errors[-300:]}")
    results = [_result(run) for run in world.runs()]
    if len(results) != count:
        tally.faults.append(f"{count} at once: {len(results)} run directories")
    tally.faults += [f"{count} at once: {line}" for line in _unlike(results, undisturbed)]
    tally.faults += [f"{count} at once: {line}" for line in _damage(world, undisturbed)]
    say(f"{count} at once: {len(tally.faults)} faults")
    return tally


def _result(run: Path) -> dict[str, object]:
    result = json.loads((run / "result.json").read_text(encoding="utf-8")) if (run / "result.json").exists() else {}
    return {
        "status": status_of(run)[0],
        "verified": result.get("verified"),
        "evaluations": result.get("spent", {}).get("evaluations"),
        "partial": [path.name for path in run.rglob("*.partial")],
        "weights": (run / "model" / "model.safetensors").is_file(),
    }


def _unlike(results: list[dict[str, object]], undisturbed: Survey) -> list[str]:
    """Where a run among others is not what it is alone."""
    alone = undisturbed.left["runs/RUN/result.json"]
    assert isinstance(alone, dict)
    wanted = {
        "status": "finished",
        "evaluations": alone["spent"]["evaluations"],
        "partial": [],
        "weights": True,
    }
    lines = [
        f"{name} is {one[name]!r}, alone {value!r}"
        for one in results
        for name, value in wanted.items()
        if one[name] != value
    ]
    return lines + [f"not verified: {one['verified']!r}" for one in results if one["verified"] is None]


def _damage(world: World, undisturbed: Survey) -> list[str]:
    """What is wrong with the memory: its file, or scores that are not those of the run alone."""
    path = world.case / "runs" / "memory.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        lines = [str(row) for (row,) in connection.execute("PRAGMA integrity_check") if row != "ok"]
        lines += [f"dangling: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        rows = connection.execute("SELECT context, profile, text, sequence, kl, nll FROM score").fetchall()
    alone = undisturbed.left["runs/memory.sqlite"]
    assert isinstance(alone, dict)
    known = {tuple(row[:4]): row[4:6] for row in map(json.loads, alone["score"])}
    for *key, kl, nll in rows:
        if tuple(key) in known and known[tuple(key)] != [kl, nll]:
            lines.append(f"{key} scored {kl}, {nll}, and alone {known[tuple(key)]}")
    return lines


def _killed(world: World, seed: int, point: Point) -> None:
    jumping_clock(seed)
    watched(world.base / "struck.txt", point)


def clock(world: World, count: int, undisturbed: Survey, say: Callable[[str], None]) -> Tally:
    """Runs whose time of day jumps with every look at it, killed in the search and gone on with by another clock."""
    tally = Tally()
    scenario = SCENARIOS["run"]
    for seed in range(count):
        fresh(world, scenario)
        event = 1 + seed * 37 % max(1, undisturbed.found["counts"]["search"])
        point = Point("search", "KILL", event=event)
        first = forks.call(scenario.words(world), world.case, partial(_killed, world, seed, point))
        second = forks.call(scenario.again(world), world.case, partial(jumping_clock, seed + 1000))
        tally.tried["clocks"] += 1
        wrong = [one.fault for one in (first, second) if one.fault]
        if first.status != -9 or second.status:
            wrong.append(f"status {first.status}, then {second.status}: {second.errors[-300:]}")
        wrong += differences(undisturbed.left, left_behind(world))
        say(f"a clock that jumps, seed {seed}: {len(wrong)} faults")
        if wrong:
            tally.faults.append("\n  ".join([f"a clock that jumps, seed {seed}:", *wrong[:8]]))
    return tally
