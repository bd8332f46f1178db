"""Three parts of one text that share nothing: what calibrates must not judge, and what judges must not report.

Pure functions of strings, so the parts are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

Part = Literal["calibration", "fitness", "reporting"]
PARTS: tuple[Part, ...] = get_args(Part)
SHARES: dict[Part, float] = {"calibration": 0.80, "fitness": 0.08, "reporting": 0.12}


def by_key(keyed: Sequence[tuple[str, str]], part: Part) -> tuple[str, ...]:
    """The documents of `part`, given (key, document) pairs: pairs with one key are in one part, drawn by its hash.

    Documents that occur twice are kept once; they come in the order of their hashes, so that any first few are a fair
    sample.
    """
    low, high = _range(part)
    owner: dict[str, str] = {}  # a document belongs to the first key that has it, so no two parts share one
    for key, document in keyed:
        owner.setdefault(document, key)
    chosen = [document for document, key in owner.items() if low <= _fraction(key) < high]
    return tuple(sorted(chosen, key=_fraction))


def by_position(documents: Sequence[str], part: Part) -> tuple[str, ...]:
    """The documents of `part`, cut from the text in its order; a document on the border is cut at a space.

    Documents that occur twice are kept once.
    """
    unique = list(dict.fromkeys(documents))
    total = sum(map(len, unique))
    low, high = (round(bound * total) for bound in _range(part))
    pieces, start = [], 0
    for document in unique:
        first, last = (next_space(document, min(max(bound - start, 0), len(document))) for bound in (low, high))
        if document[first:last].strip():
            pieces.append(document[first:last])
        start += len(document)
    return tuple(pieces)


def digest(documents: Sequence[str]) -> str:
    """A hex digest of documents and their order."""
    hashed = hashlib.sha256()
    for document in documents:
        encoded = document.encode()
        hashed.update(len(encoded).to_bytes(8, "little"))
        hashed.update(encoded)
    return hashed.hexdigest()


def next_space(document: str, position: int) -> int:
    """The first place from `position` on where cutting breaks no word; the end if there is none."""
    while 0 < position < len(document) and not document[position].isspace():
        position += 1
    return position


def _range(part: Part) -> tuple[float, float]:
    """Where `part` begins and ends in the unit interval."""
    low = sum(SHARES[other] for other in PARTS[: PARTS.index(part)])
    return low, 1.0 if part == PARTS[-1] else low + SHARES[part]


def _fraction(text: str) -> float:
    """A number in [0, 1) drawn by the hash of `text`; 52 bits of it, so that the division never rounds up to 1."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 12) / 2**52
