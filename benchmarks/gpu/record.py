"""What a part has measured so far, as one JSON file that is whole at any moment."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.run_files.atomic_write import atomic_write

Row = dict[str, Any]


def figure(values: Sequence[float], digits: int = 6) -> dict[str, Any]:
    """Repeats of one measurement: every one, the median, and the spread (95% range over the median, else full range).

    Args:
        values: at least one.
        digits: significant ones that are kept.
    """
    ordered = sorted(values)
    cut = len(ordered) // 20  # nothing is cut below 20 repeats
    inner = ordered[cut : len(ordered) - cut]
    middle = statistics.median(ordered)
    return {
        "median": rounded(middle, digits),
        "spread": rounded((inner[-1] - inner[0]) / middle, 3) if middle else 0.0,
        "repeats": [rounded(value, digits) for value in values],
    }


def rounded(value: float, digits: int = 4) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


class Deadline:
    """When a part has to be done: what would end after it is not begun."""

    def __init__(self, seconds: float) -> None:
        """So many seconds from now."""
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left, below zero where it has passed."""
        return self.end - time.monotonic()


def begun(part: str, limit: float, settings: dict[str, Any]) -> dict[str, Any]:
    """What the file of a part holds before anything is measured; the arguments are `Record`'s."""
    times = {"seconds": 0.0, "limit_seconds": limit}
    return {"part": part, "status": "running", "why": None, **times, "settings": settings, "device": {}, "rows": []}


class Record:
    """The JSON file of one part; every change is on the disk before the next measurement begins."""

    def __init__(self, path: Path, part: str, limit: float, settings: dict[str, Any]) -> None:
        """Begin the file.

        Args:
            path: where it is written.
            part: the part's name.
            limit: seconds that the part may take.
            settings: what is measured on: shapes, tokens, repeats.
        """
        self.path = path
        self._began = time.monotonic()
        self.content = begun(part, limit, settings)
        self.save()

    def row(self, **fields: Any) -> Row:
        """Add a measurement; what is put into the dictionary later is written by the next `save`."""
        self.content["rows"].append(fields)
        self.save()
        shown = {name: value for name, value in fields.items() if not isinstance(value, dict | list)}
        print(f"  {self.content['part']}: " + ", ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
        return fields

    def target(
        self, figure: str, value: float | None, *, least: float | None = None, most: float | None = None
    ) -> None:
        """Hold a figure against what it is to be; one that is not known meets nothing."""
        met = value is not None and (least is None or value >= least) and (most is None or value <= most)
        aim = f"at least {least:g}" if least is not None else f"at most {most:g}"
        known = None if value is None else rounded(value)
        self.content.setdefault("targets", []).append({"figure": figure, "value": known, "target": aim, "met": met})
        self.save()
        print(f"  {self.content['part']}: {figure}: {known}, to be {aim}: {'met' if met else 'not met'}", flush=True)

    def set(self, **fields: Any) -> None:
        """Set fields beside the rows: the device, what was found in all."""
        self.content |= fields
        self.save()

    def end(self, status: str, why: str | None = None) -> None:
        """Close the part: `done`, or `failed` and why."""
        self.set(status=status, why=why)

    def save(self) -> None:
        """Write the file aside, then rename it."""
        self.content["seconds"] = round(time.monotonic() - self._began, 1)
        write_json(self.path, self.content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, which holds the old or the new whole at any moment."""
    atomic_write(path, json.dumps(content, indent=1) + "\n")
