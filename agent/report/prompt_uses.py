"""What came of prompt sets in the runs that a memory knows, as a table: one row a set and brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("set", "digest", "brain", "runs", "turns", "failed", "legal", "repair", "tokens", "improved", "chance")
NOTE = (
    "Legal: share of replies that a rule allowed. Repair: units that were changed in a candidate, to meet the budget. "
    "Tokens: read and written a turn. Improved: variations of the brain that beat their parents, of those measured; "
    "chance: the same of random choices among the same calls. Whether a set decides better than chance is what "
    "main.py decisions --prompts measures."
)


def rows_of(uses: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of the table from the rows of `read_prompt_uses`; sets are told apart by their digests."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for use in uses:
        groups.setdefault((use["name"], use["digest"], use["brain"]), []).append(use)
    return [_row(*names, found) for names, found in groups.items()]


def _row(name: str, digest: str, brain: str, uses: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    def total(column: str) -> int:
        return sum(use[column] for use in uses)

    turns, replies, made = total("turns"), total("replies"), total("made")
    return (
        name,
        digest,
        brain,
        str(len(uses)),
        str(turns),
        str(total("failed")),
        f"{(replies - total('illegal')) / replies:.0%}" if replies else "-",
        f"{total('repaired') / made:.1f}" if made else "-",
        f"{total('tokens') / turns:,.0f}" if turns else "-",
        f"{total('improved')} of {total('compared')}",
        f"{total('chance_improved')} of {total('chance_compared')}",
    )
