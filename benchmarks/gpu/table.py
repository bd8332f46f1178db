"""The table of a folder of results: what stands in its JSON files, part by part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS: dict[str, tuple[str, ...]] = {
    "headline": (
        "model",
        "linear",
        "paper",
        "batch",
        "mode",
        "prefill_ms",
        "decode_ms",
        "tokens_per_second",
        "prefill_share_of_peak",
        "decode_share_of_copy",
    ),
    "bandwidth": ("copy", "gigabytes_per_second", "copy_seconds", "product_seconds", "together_seconds", "hidden"),
    "streamed": (
        "phase",
        "seconds_taken",
        "passes",
        "gigabytes_per_second",
        "share_of_pinned",
        "peak_bytes",
    ),
    "refits": ("channels", "step", "way", "median_s", "factor_s", "refit_s", "relative_error", "peak_bytes"),
    "walk": (
        "layers",
        "phase",
        "seconds_taken",
        "tokens_per_second",
        "share_of_peak",
        "factorisations",
        "kl_mean",
        "kl_largest",
        "peak_bytes",
    ),
    "seven-billion": ("phase", "seconds_taken", "peak_bytes"),
    "brain": ("mode", "prompt_ms", "step_ms", "turn_seconds", "tokens_per_second", "share_of_copy"),
}
SPEEDUPS = ("model", "linear", "paper", "batch", "mode", "prefill", "decode", "request")
LOSSES = ("model", "batch", "lost_ms", "attention", "mlp", "head", "rest")
TARGETS = ("figure", "value", "target", "met")
PIECES = ("model", "batch", "piece", "ms", "share_of_copy")


class NoResultsError(Exception):
    """A folder without results of this script."""


def load(folder: Path) -> list[dict[str, Any]]:
    """The results in `folder`, in the order of the parts.

    Raises:
        NoResultsError: there are none, or a file is not what the script writes.
    """
    found = []
    for part in COLUMNS:
        path = folder / f"{part}.json"
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NoResultsError(f"{path} is damaged: {error}") from error
        if not isinstance(content, dict) or not {"part", "status", "rows", "device"} <= content.keys():
            raise NoResultsError(f"{path} is not what this script writes")
        found.append(content)
    if not found:
        raise NoResultsError(
            f"{folder} holds no results: it has none of {', '.join(f'{part}.json' for part in COLUMNS)}"
        )
    return found


def text_of(results: Sequence[dict[str, Any]]) -> str:
    """All tables, as plain text."""
    lines: list[str] = []
    for content in results:
        facts = content["device"]
        about = ", ".join(str(facts[name]) for name in ("name", "torch", "transformers") if facts.get(name))
        lines += [f"== {content['part']}: {content['status']} after {content['seconds']} s ({about})"]
        if content.get("why"):
            lines.append(f"   {content['why']}")
        lines += _grid(COLUMNS[content["part"]], content["rows"])
        if content.get("speedups"):
            lines += ["", "   speed-up against dense"] + _grid(SPEEDUPS, content["speedups"])
        if pieces := list(_pieces(content["rows"])):
            lines += ["", "   a decoded token by pieces, in graphs"] + _grid(PIECES, pieces)
        if content.get("losses"):
            lines += ["", "   milliseconds of a token above the dense ones over the linear speed-up"]
            lines += _grid(LOSSES, content["losses"])
        if content.get("targets"):
            toys = ", of no account for toy shapes" if content["settings"].get("tiny") else ""
            lines += ["", f"   what is to be reached{toys}"] + _grid(TARGETS, content["targets"])
        if content.get("breaks_at"):
            lines.append(f"   breaks at {content['breaks_at']}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _pieces(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"model": row["model"], "batch": row["batch"], "piece": name, **piece}
        for row in rows
        for name, piece in row.get("pieces", {}).items()
    ]


def _grid(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows under their columns; columns that no row has are left out, errors and what was skipped come last."""
    used = [name for name in columns if any(row.get(name) is not None for row in rows)]
    cells = [[name.replace("_", " ") for name in used]]
    for row in rows:
        note = row.get("error") or row.get("skipped")
        cells.append([_cell(row.get(name)) for name in used] + ([str(note)] if note else []))
    widths = [max(len(line[column]) for line in cells if column < len(line)) for column in range(len(used))]
    return [
        "   " + "  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=False)).rstrip()
        for line in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, dict):  # repeats: the median
        value = value.get("median")
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10**7:
        return f"{value / 1e9:.2f} GB"
    return f"{value:,}" if isinstance(value, int) else str(value)
