"""How inputs are invented: odd values, and good files and JSON values with a few of their places changed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.campaign.fuzz import Attempt

Made = tuple[SearchStrategy[Any], Attempt]

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "nan", "inf", "-1", "0", "1e999", "0x10", "..", "/", "~", "\x00", "\x1b[2J", "{{", "%s", "a,b"]
    ),
)
odd_number = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
)
odd_json = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_number, odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_text, inner, max_size=4)),
    max_leaves=12,
)


def mutated(whole: Sequence[bytes]) -> SearchStrategy[bytes]:
    """A good file with a few places overwritten, cut out, doubled or filled with something else."""
    edit = st.tuples(
        st.sampled_from(["write", "cut", "double", "insert"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\x00", b"\xff" * 8, b"null", b"1e999", b'"', b"[" * 2000]),
        ),
    )
    return st.tuples(st.sampled_from(list(whole)), st.lists(edit, max_size=4)).map(_overwritten)


def _overwritten(drawn: tuple[bytes, list[tuple[str, float, bytes]]]) -> bytes:
    data, edits = drawn
    for what, share, piece in edits:
        at = int(share * len(data))
        if what == "write":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "cut":
            data = data[:at] + (data[at + len(piece) * 16 :] if len(piece) < 8 else b"")
        elif what == "double":
            data = data[:at] + data[at : at + 200] + data[at:]
        else:
            data = data[:at] + piece + data[at:]
    return data


edits = st.lists(st.tuples(st.integers(0, 2**32), st.sampled_from(["put", "drop", "add"]), odd_json), max_size=3)


def changed(good: Any) -> SearchStrategy[Any]:
    """A good JSON value with a few of its places replaced, removed or added."""
    return edits.map(lambda drawn: edited(json.loads(json.dumps(good)), drawn))


def edited(value: Any, edits: list[tuple[int, str, Any]]) -> Any:
    for number, what, drawn in edits:
        new = json.loads(json.dumps(drawn))  # what is put into itself would be no JSON
        rng, inside = random.Random(number), value
        while isinstance(inside, dict | list) and inside:
            key = rng.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
            below = inside[key]
            if not isinstance(below, dict | list) or not below or rng.random() < 0.3:
                if what == "drop":
                    del inside[key]
                elif what == "add" and isinstance(inside, dict):
                    inside[str(new)[:20]] = below
                else:
                    inside[key] = new
                break
            inside = below
    return value
