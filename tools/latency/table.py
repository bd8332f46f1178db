"""What every width costs in milliseconds: measured once, summed to predictions.

All layers of a model have the same shapes, so a width is timed in all at once: a whole model whose layers keep so
much of one part, beside the dense model, in turn. What it saves, shared out over the layers, is what one place of that
width saves. Weights stream from memory as they will when the model serves; a block timed alone would stay in a cache.
Widths between measured ones lie on the line between these; nothing is assumed to fall with the width.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from self_pruner.memory.errors import KeptFileError
from self_pruner.memory.no_links import open_to_write
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.latency.measure import LatencyReport, device_in_words
from self_pruner.tools.profiles.space import Space

_LAYOUT = "{} layers of {} attention units of {} KV groups and of {} MLP units of {} channels"
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


@dataclass(frozen=True, slots=True)
class Timed:
    """What a table is of."""

    model: str  # its name
    layers: int
    units: dict[Part, int]  # of a dense layer
    mlp_unit: int  # channels
    attention_unit: int  # KV groups
    engine: str  # what ran it, with its version
    device: str
    dtype: str
    prompt: int  # tokens of the request
    decode: int
    batch: int
    tensor_parallel: int = 1  # devices that share a layer, where an engine serves it so
    bias: bool = False  # whether the cut layers have biases that the dense ones have not

    @property
    def devices(self) -> int:
        """How many devices shared a layer when it was timed: other engines than vLLM run on one, whatever serves."""
        return self.tensor_parallel if self.engine.startswith("vLLM") else 1

    def __str__(self) -> str:
        where = (f"{self.devices} x " if self.devices > 1 else "") + device_in_words(self.device)
        return (
            f"{self.engine} on {where} in {self.dtype}, {self.prompt} + {self.decode} tokens, "
            f"batch {self.batch}{', with biases' if self.bias else ''}"
        )

    def refuses(self, space: Space, tensor_parallel: int = 1, bias: bool = False) -> str | None:
        """Why the table is of no use for a space of profiles that is served so, or None."""
        own = (self.layers, self.units["attention"], self.attention_unit, self.units["mlp"], self.mlp_unit)
        other = (space.n_layers, space.n_groups, space.attention_unit, space.n_blocks, space.mlp_unit)
        if own == other:
            if self.engine.startswith("vLLM") and self.tensor_parallel != tensor_parallel:
                return f"it is of --tensor-parallel {self.tensor_parallel}, and {tensor_parallel} is asked for"
            if self.bias != bias:
                kinds = [f"with{'' if biased else 'out'} biases" for biased in (self.bias, bias)]
                return "it is of cut layers {}, and this --compensation leaves them {}".format(*kinds)
            return None
        return f"it is of {self.model}: " + _LAYOUT.format(*own) + "; this model has " + _LAYOUT.format(*other)


@dataclass(frozen=True)
class LatencyTable:
    """The dense model's time, and what one place of each timed width takes beyond a dense one (mostly less)."""

    dense: Milliseconds
    rows: dict[Part, dict[int, Milliseconds]]  # by part and width, dense among them with zeros
    timed: Timed
    offset: Milliseconds = Milliseconds(0.0, 0.0)  # what dense widths take more in the format of pruned models
    without_graphs: int = 0  # models that were launched one by one, where CUDA graphs were meant
    graph_fault: str = ""  # why

    @property
    def decode(self) -> int:
        """Tokens that a request decodes."""
        return self.timed.decode

    @property
    def setting(self) -> str:
        """What the table is of, as it was really timed."""
        return ", ".join([str(self.timed), *([self.fault] if self.fault else [])])

    @property
    def fault(self) -> str:
        """How many models were timed without the CUDA graphs that were meant, and why; empty where none was."""
        if not self.without_graphs:
            return ""
        count = f"{self.without_graphs} model{'s' if self.without_graphs > 1 else ''}"
        return f"{count} timed without CUDA graphs, so as launches one by one: {self.graph_fault}"

    def predict(self, profile: Profile) -> Milliseconds:
        """What a request takes at `profile`, its places summed."""
        changes = [self.change(part, width) for part in PARTS for width in profile.widths(part)]
        return Milliseconds(
            self.dense.prefill + self.offset.prefill + sum(change.prefill for change in changes),
            self.dense.decode + self.offset.decode + sum(change.decode for change in changes),
        )

    def speedup(self, profile: Profile) -> float:
        """Of a whole request, against the dense model."""
        return self.dense.request(self.decode) / self.predict(profile).request(self.decode)

    def change(self, part: Part, width: int) -> Milliseconds:
        """What a place of that width takes beyond a dense one."""
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
        rows = {
            part: {int(width): Milliseconds(**one) for width, one in values["rows"][part].items()} for part in PARTS
        }
        dense, offset = Milliseconds(**values["dense"]), Milliseconds(**values["offset"])
        numbers = [dense, offset, *(one for row in rows.values() for one in row.values())]
        if not all(math.isfinite(one.prefill) and math.isfinite(one.decode) for one in numbers):
            raise ValueError("it has times that are no numbers")
        if min(dense.prefill, dense.decode) <= 0:
            raise ValueError("it has no time of the dense model")
        timed = Timed(**values["timed"])
        counts = [timed.layers, timed.mlp_unit, timed.attention_unit, timed.prompt, timed.decode, timed.batch]
        if not all(type(one) is int and one > 0 for one in (*counts, timed.tensor_parallel, *timed.units.values())):
            raise ValueError("it has counts that are no numbers")
        if not all(isinstance(name, str) for name in (timed.model, timed.engine, timed.device, timed.dtype)):
            raise ValueError("it has names that are no texts")
        if any(not {1, timed.units[part]} <= row.keys() for part, row in rows.items()):
            raise ValueError("it has no dense width, or none of one unit")
        without_graphs, fault = int(values.get("without_graphs", 0)), str(values.get("graph_fault", ""))
        return cls(dense, rows, timed, offset, without_graphs, fault)


def timed_widths(units: int, points: int = POINTS) -> list[int]:
    """The widths of a part with so many units that are timed, dense left out: all, or some evenly apart with 1."""
    if units - 1 <= points:
        return list(range(1, units))
    return sorted({1, *(max(1, round(units * step / (points + 1))) for step in range(1, points + 1))})


def wanted_profiles(space: Space, foreign: bool = False) -> dict[tuple[Part, int], Profile]:
    """The models that a table is made from: by part and width, that width in every layer, all else dense.

    Where pruned models are `foreign`, run in another format than the dense one, the whole widths in theirs too.
    """
    dense = space.dense()
    found: dict[tuple[Part, int], Profile] = {("mlp", space.n_blocks): dense} if foreign else {}
    for part in PARTS:
        for width in timed_widths(space.units(part)):
            widths = (width,) * space.n_layers
            found[part, width] = Profile(widths, dense.mlp) if part == "attention" else Profile(dense.attention, widths)
    return found


def measure_table(
    space: Space,
    timed: Timed,
    timer: Timer,
    progress: Callable[[int, int], None] | None = None,
    *,
    foreign: bool = False,
    notes: Path | None = None,
) -> LatencyTable:
    """Time every width that is wanted, one whole model each.

    Args:
        space: of the profiles.
        timed: what is measured.
        timer: times a profile and the dense model in turn.
        progress: called with (models timed, models in all).
        foreign: whether pruned models run in another format than the dense one.
        notes: file that each timing is added to, and that earlier ones are taken from; deleted when all are there.
    """
    wanted = wanted_profiles(space, foreign)
    reports = _noted(notes)
    for done, (place, profile) in enumerate(wanted.items()):
        if progress is not None:
            progress(done, len(wanted))
        if place in reports:
            continue
        reports[place] = timer(profile)
        if notes is not None:
            with os.fdopen(
                open_to_write(notes, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8"
            ) as file:  # a line that was cut short is timed again
                file.write("\n" + json.dumps([*place, asdict(reports[place])]))
    table = table_of(space, timed, {place: reports[place] for place in wanted})
    if notes is not None:
        notes.unlink(missing_ok=True)
    return table


def _noted(notes: Path | None) -> dict[tuple[Part, int], LatencyReport]:
    """The timings in a file of notes; lines that cannot be read are as good as none."""
    found: dict[tuple[Part, int], LatencyReport] = {}
    if notes is not None and notes.is_file():
        for line in notes.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, KeyError):
                part, width, values = json.loads(line)
                found[part, width] = LatencyReport(**values)
    return found


def table_of(space: Space, timed: Timed, reports: Mapping[tuple[Part, int], LatencyReport]) -> LatencyTable:
    """The table that measurements of `wanted_profiles` make."""
    whole = Milliseconds(
        statistics.median(report.dense_prefill_ms for report in reports.values()),
        statistics.median(report.dense_decode_ms for report in reports.values()),
    )
    # by the ratio to the dense model of the same minute, so that a machine that slows down does not count
    beyond = {
        place: Milliseconds(
            whole.prefill * (1 / report.speedup_prefill - 1), whole.decode * (1 / report.speedup_decode - 1)
        )
        for place, report in reports.items()
    }
    offset = beyond.pop(("mlp", space.n_blocks), Milliseconds(0.0, 0.0))
    rows: dict[Part, dict[int, Milliseconds]] = {part: {space.units(part): Milliseconds(0.0, 0.0)} for part in PARTS}
    for (part, width), one in beyond.items():
        rows[part][width] = Milliseconds(
            (one.prefill - offset.prefill) / space.n_layers, (one.decode - offset.decode) / space.n_layers
        )
    faults = [report.graph_fault for report in reports.values() if report.graph_fault]
    return LatencyTable(whole, rows, timed, offset, len(faults), faults[-1] if faults else "")


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


def check_table(table: LatencyTable, profiles: Sequence[tuple[str, Profile]], timer: Timer) -> list[Checked]:
    """Predictions for whole profiles beside measurements made now."""
    return [Checked(name, table.speedup(profile), timer(profile).speedup) for name, profile in profiles]


def read_table(path: Path) -> LatencyTable:
    """A table from its file.

    Raises:
        KeptFileError: it cannot be read, or is no table.
    """
    try:
        return LatencyTable.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise KeptFileError(f"the latency table {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise KeptFileError(f"{path} is no latency table, or is damaged ({type(error).__name__})") from error
