"""A profile: how many units every layer keeps. Integers only; this is what the memory stores and the brain writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["attention", "mlp"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True, order=True)
class Profile:
    """Units kept in the attention (KV groups) and in the MLP (blocks of channels) of every layer."""

    attention: tuple[int, ...]
    mlp: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.mlp):
            raise ValueError(
                f"a profile needs as many attention as MLP widths, got {len(self.attention)} and {len(self.mlp)}"
            )

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.attention)

    def widths(self, part: Part) -> tuple[int, ...]:
        """Units kept in `part`, one integer a layer."""
        return self.attention if part == "attention" else self.mlp

    def with_width(self, layer: int, part: Part, width: int) -> Profile:
        """The same profile with one width changed."""
        widths = list(self.widths(part))
        widths[layer] = width
        return Profile(tuple(widths), self.mlp) if part == "attention" else Profile(self.attention, tuple(widths))

    def key(self) -> str:
        """A canonical text form, equal exactly when the profiles are equal: `3,3,2|48,40,12`."""
        return ",".join(map(str, self.attention)) + "|" + ",".join(map(str, self.mlp))

    @classmethod
    def from_key(cls, key: str) -> Profile:
        """The inverse of `key`; raises ValueError on any other text."""
        attention, separator, mlp = key.partition("|")
        if not separator:
            raise ValueError(f"not a profile key: {key!r}")
        return cls(tuple(map(int, attention.split(","))), tuple(map(int, mlp.split(","))))
