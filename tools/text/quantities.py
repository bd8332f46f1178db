"""Bytes, seconds and counts as people say them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in the largest unit that they reach, of a thousand bytes each."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}" if count < 10 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"


def counted(count: int, noun: str) -> str:
    """So many of what `noun` is one of: "1 turn", "2 turns"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
