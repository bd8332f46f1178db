"""What every width costs in milliseconds: measured once, summed to predictions.

All layers of a model have the same shapes, so a width is timed in all at once: a whole model whose layers keep so
much of one part, beside the dense model, in turn. What it saves, shared out over the layers, is what one place of that
width saves. Weights stream from memory as they will when the model serves; a block timed alone would stay in a cache.
Widths between measured ones lie on the line between these; nothing is assumed to fall with the width.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memory.profile import PARTS, Part, Profile
from tools.latency.measure import LatencyReport
from tools.pruning.space import Space

POINTS = 7  # widths of a part that are timed, where it has more

Timer = Callable[[Profile], LatencyReport]  # a profile beside the dense model


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """Of one request."""

    prefill: float  # of the whole prompt
    decode: float  # of one more token

    def request(self, decode_tokens: int) -> float:
        """Of the prompt and so many tokens more."""
        return self.prefill + decode_tokens * self.decode


@dataclass(frozen=True)
class LatencyTable:
    """The dense model's time, and what one place of each timed width takes beyond a dense one (mostly less)."""

    dense: Milliseconds
    rows: dict[Part, dict[int, Milliseconds]]  # by part and width, dense among them with zeros

    def predict(self, profile: Profile) -> Milliseconds:
        """What a request takes at `profile`, its places summed."""
        changes = [self._change(part, width) for part in PARTS for width in profile.widths(part)]
        return Milliseconds(
            self.dense.prefill + sum(change.prefill for change in changes),
            self.dense.decode + sum(change.decode for change in changes),
        )

    def speedup(self, profile: Profile, decode_tokens: int) -> float:
        """Of a whole request, against the dense model."""
        return self.dense.request(decode_tokens) / self.predict(profile).request(decode_tokens)

    def _change(self, part: Part, width: int) -> Milliseconds:
        row = self.rows[part]
        if width in row:
            return row[width]
        widths = sorted(row)
        place = min(max(bisect_left(widths, width), 1), len(widths) - 1)
        low, high = widths[place - 1], widths[place]
        share = (width - low) / (high - low)
        below, above = row[low], row[high]
        return Milliseconds(
            below.prefill + share * (above.prefill - below.prefill),
            below.decode + share * (above.decode - below.decode),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LatencyTable:
        """What `to_json` gave."""
        rows = {
            part: {int(width): Milliseconds(**one) for width, one in values["rows"][part].items()} for part in PARTS
        }
        return cls(Milliseconds(**values["dense"]), rows)


def timed_widths(units: int, points: int = POINTS) -> list[int]:
    """The widths of a part with so many units that are timed, dense left out: all, or some evenly apart with 1."""
    if units - 1 <= points:
        return list(range(1, units))
    return sorted({1, *(max(1, round(units * step / (points + 1))) for step in range(1, points + 1))})


def measure_table(space: Space, timer: Timer, progress: Callable[[int, int], None] | None = None) -> LatencyTable:
    """Time every width that is wanted, one whole model each.

    Args:
        space: of the profiles.
        timer: times a profile and the dense model in turn.
        progress: called with (models timed, models in all).
    """
    wanted: list[tuple[Part, int]] = [(part, width) for part in PARTS for width in timed_widths(space.units(part))]
    reports: dict[tuple[Part, int], LatencyReport] = {}
    dense = space.dense()
    for done, (part, width) in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted))
        widths = (width,) * space.n_layers
        profile = Profile(widths, dense.mlp) if part == "attention" else Profile(dense.attention, widths)
        reports[part, width] = timer(profile)
    whole = Milliseconds(
        statistics.median(report.dense_prefill_ms for report in reports.values()),
        statistics.median(report.dense_decode_ms for report in reports.values()),
    )
    rows: dict[Part, dict[int, Milliseconds]] = {part: {space.units(part): Milliseconds(0.0, 0.0)} for part in PARTS}
    for (part, width), report in reports.items():
        # by the ratio to the dense model of the same minute, so that a machine that slows down does not count
        rows[part][width] = Milliseconds(
            whole.prefill * (1 / report.speedup_prefill - 1) / space.n_layers,
            whole.decode * (1 / report.speedup_decode - 1) / space.n_layers,
        )
    return LatencyTable(whole, rows)


@dataclass(frozen=True, slots=True)
class Checked:
    """A prediction beside a measurement: times of the dense model's."""

    name: str
    predicted: float  # speed-up of a whole request
    measured: float

    @property
    def error(self) -> float:
        """Of the predicted time, as a share of the measured one."""
        return self.measured / self.predicted - 1.0


def check_table(
    table: LatencyTable, profiles: Sequence[tuple[str, Profile]], timer: Timer, decode_tokens: int
) -> list[Checked]:
    """Predictions for whole profiles beside measurements made now."""
    return [Checked(name, table.speedup(profile, decode_tokens), timer(profile).speedup) for name, profile in profiles]
