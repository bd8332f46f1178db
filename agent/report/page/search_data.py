"""What a search made and measured, for the page: candidates with their scores, generations, probes, sensitivities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from self_pruner.agent.settings.settings import text_label
from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.read_only import read_rows
from self_pruner.memory.records import FITNESS

Row = Mapping[str, Any]  # of the memory, by column
OF_A_CANDIDATE = (
    "id",
    "parents",
    "operator",
    "proposed_by",
    "generation",
    "step",
    "call",
    "repaired",
    "params",
    "detail",
)
OF_A_GENERATION = ("number", "survivors", "best", "note", "step")
OF_A_LESSON = ("take", "give", "amount", "expected", "verdict", "change", "error", "run")
SHOWN_LATENCIES = ("prefill_ms", "decode_ms", "tokens_per_second", "speedup")
NOTHING: Mapping[str, Any] = {
    **{name: [] for name in ("candidates", "generations", "remembered", "probes", "sensitivities")},
    "dense": None,
}


def search_data(records: Path, run: str, settings: Mapping[str, Any], holdout: Mapping[str, float]) -> dict[str, Any]:
    """What the run with that id made and measured so far.

    Args:
        records: its own file.
        run: its id.
        settings: its settings by name, with defaults.
        holdout: fitness on the holdout of the candidates that were compared there, by id.

    Returns:
        Lists of plain values by what they are of, as in `NOTHING`; `dense` has the units of a layer by part where a
        profile is known. Fitness is in nats a token, by the tokens it was measured on.

    Raises:
        MemoryFileError: the file is missing, damaged or locked.
    """
    rows = read_rows(records, run)
    try:
        scores: dict[str, list[Row]] = defaultdict(list)  # on the fitness text, by profile and in its order
        for row in rows["score"]:
            if row["text"] == FITNESS:
                scores[row["profile"]].append(row)
        profiles = {key: Profile.from_key(key) for key in {*scores, *(row["profile"] for row in rows["candidate"])}}
        latencies = {row["profile"]: row["values"] for row in rows["latency"]}
        candidates = []
        for row in rows["candidate"]:
            profile, values = profiles[row["profile"]], latencies.get(row["profile"], {})
            candidates.append(
                {name: row[name] for name in OF_A_CANDIDATE}
                | {part: profile.widths(part) for part in PARTS}
                | measured(scores.get(row["profile"], []), settings)
                | {"holdout": holdout.get(row["id"])}
                | {"latency": {name: values[name] for name in SHOWN_LATENCIES if name in values}}
            )
        dense = dense_units(profiles.values())
        return {
            "candidates": candidates,
            "generations": [{name: row[name] for name in OF_A_GENERATION} for row in rows["generation"]],
            "remembered": [
                {**{name: row[name] for name in OF_A_LESSON}, "model": row.get("model", "")} for row in rows["lesson"]
            ],
            "probes": probes(profiles, scores, dense, settings),
            "sensitivities": sensitivities(rows["sensitivities"]),
            "dense": dense,
        }
    except (
        ValueError,
        TypeError,
        IndexError,
        ZeroDivisionError,
    ) as error:  # a row, or a setting, that no program wrote
        raise MemoryFileError(f"{records} is damaged: it holds a row that is none") from error


def measured(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What one profile scored, `rows` being its sequences in order.

    Returns:
        `scores`, the mean KL by tokens, of every fidelity that was measured whole; `texts`, the mean KL by fitness
        text, which take turns; `error`, why measuring failed, or None.
    """
    length, names = settings["sequence_length"], str(settings["fitness_text"]).split(",")
    ranked = rows[: settings["fidelity"][-1] // length]  # those behind it are the holdout
    values = []
    for number, row in enumerate(ranked):
        if row["sequence"] != number or row["kl"] is None:
            break
        values.append(row["kl"])
    return {
        "scores": {
            str(tokens): fmean(values[: tokens // length])
            for tokens in settings["fidelity"]
            if 0 < tokens // length <= len(values)
        },
        "texts": {
            text_label(name): fmean(values[first :: len(names)]) for first, name in enumerate(names) if values[first:]
        },
        "error": next((row["error"] for row in rows if row["error"]), None),
    }


def dense_units(profiles: Iterable[Profile]) -> dict[str, int] | None:
    """Units of a dense layer by part: the most that any profile keeps; None where there is no profile."""
    known = list(profiles)
    return {part: max(max(one.widths(part)) for one in known) for part in PARTS} if known else None


def probes(
    profiles: Mapping[str, Profile],
    scores: Mapping[str, Sequence[Row]],
    dense: Mapping[str, int] | None,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What it costs to cut one place alone: layer, part, the width it was cut to, KL in nats a token."""
    count = settings["probe_tokens"] // settings["sequence_length"]
    found: list[dict[str, Any]] = []
    for key, rows in scores.items():
        cut = [
            (layer, part, width)
            for part in PARTS
            for layer, width in enumerate(profiles[key].widths(part))
            if width < (dense or {})[part]
        ]
        values = [row["kl"] for row in rows[:count]]
        if len(cut) == 1 and len(values) == count and None not in values:
            layer, part, width = cut[0]
            found.append({"layer": layer, "part": part, "width": width, "kl": fmean(values)})
    return sorted(found, key=lambda one: (one["part"], one["layer"]))


def sensitivities(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every profile at which they were measured: by part and layer, what one unit fewer or one more changes.

    Nats a token to first order, means over sequences; None where there is no such width.
    """
    tables: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        tables[row["profile"]].append(row)
    found = []
    for key, own in tables.items():
        profile = Profile.from_key(key)
        one: dict[str, Any] = {"step": own[0]["step"], **{f"{part}_at": profile.widths(part) for part in PARTS}}
        for part in PARTS:
            one[part] = [
                [_mean_at(own, part, layer, width + change) for change in (-1, 1)]
                for layer, width in enumerate(profile.widths(part))
            ]
        found.append(one)
    return found


def _mean_at(rows: Sequence[Row], part: str, layer: int, width: int) -> float | None:
    values = [row[part][layer][width] for row in rows if 0 <= width < len(row[part][layer])]
    return fmean(values) if values else None
