"""Numbers that are not known before anything is measured, in prompts that are shown before that."""

from __future__ import annotations

import math

MEASURED = "(not measured yet)"
RANKED = "?"


class Unmeasured(float):
    """A figure that only a measurement gives: not a number, and printed, rounded or scaled it is `MEASURED`."""

    def __new__(cls) -> Unmeasured:
        """Not a number."""
        return super().__new__(cls, math.nan)

    def __format__(self, specification: str) -> str:
        """`MEASURED`, whatever the format."""
        return MEASURED

    def __str__(self) -> str:
        """`MEASURED`."""
        return MEASURED

    def _itself(self, *others: object) -> Unmeasured:
        """Whatever is done to it leaves it unmeasured."""
        return self

    __repr__ = __str__
    __round__ = __neg__ = __abs__ = _itself  # type: ignore[assignment]
    __add__ = __radd__ = __sub__ = __rsub__ = _itself
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _itself


class Unranked(int):
    """A layer or a width that only a measurement gives; printed it is a question mark."""

    def __format__(self, specification: str) -> str:
        """A question mark, whatever the format."""
        return RANKED

    def __str__(self) -> str:
        """A question mark."""
        return RANKED

    __repr__ = __str__
