"""Shifts: a language for changes of a profile that is as coarse as a hypothesis about it.

A stretch is one part of a run of neighbouring layers, written `mlp 20-24`. A shift takes a share of one stretch and
gives the weight of it to another: "take some of mlp 20-24, give it to attention 5-9". Which unit of which layer moves
follows from the profile: layers of a stretch change alike, as far as each has room.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget, Place, spread
from self_pruner.tools.profiles.space import Space

if TYPE_CHECKING:  # it takes numpy and torch, and settings are read without them
    from self_pruner.tools.profiles.sensitivity import Costs

Amount = Literal["little", "some", "much"]
AMOUNTS: tuple[Amount, ...] = get_args(Amount)
# Of what the dense stretch that gives weighs. The largest is as far as a trust-region step goes at every place.
SHARES: Mapping[Amount, float] = MappingProxyType({"little": 1 / 48, "some": 1 / 16, "much": 1 / 8})
LINE = (1.0, 2.0, 0.5)  # times an amount: the sizes that a hypothesis is tried in, in their order
Expectation = Literal["better", "same", "worse"]
EXPECTATIONS: tuple[Expectation, ...] = get_args(Expectation)
TIMES = ", times "  # between a hypothesis and the size that a candidate tries, in its detail
_NAME = re.compile(r"(attention|mlp) (\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """One part of the layers `first` to `last`, both included."""

    part: Part
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.part} {self.first}" + (f"-{self.last}" if self.last > self.first else "")

    @classmethod
    def of(cls, text: str, n_layers: int) -> Stretch:
        """The stretch that is written so.

        Raises:
            ToolError: it is none of a model with so many layers.
        """
        found = _NAME.fullmatch(text.strip())
        if found is not None:
            first = int(found[2])
            last = int(found[3] or first)
            if first <= last < n_layers:
                return cls("attention" if found[1] == "attention" else "mlp", first, last)
        raise ToolError(
            f"{text!r} is no stretch: write attention or mlp and layers from 0 to {n_layers - 1}, as mlp 2-5"
        )

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def places(self) -> frozenset[Place]:
        return frozenset((layer, self.part) for layer in self.layers)

    def kept(self, profile: Profile) -> int:
        """Units that `profile` keeps in it."""
        return sum(profile.widths(self.part)[layer] for layer in self.layers)

    def room(self, space: Space, profile: Profile) -> tuple[int, int]:
        """Units that it can lose, and units that it can gain."""
        kept, count = self.kept(profile), len(self.layers)
        return kept - count, space.units(self.part) * count - kept


class Shift(BaseModel):
    """A share of one stretch of layers that goes to another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    take: str = Field(description="what gives: a part and its layers, as mlp 20-24")
    give: str = Field(description="what takes, written alike")
    amount: Amount = Field("some", description="how much: little, some or much")

    def __str__(self) -> str:
        return f"{self.amount} of {self.take} to {self.give}"


class Hypothesis(Shift):
    """A shift, and what is expected of it."""

    expect: Expectation = "better"


def what_came(change: float, error: float | None) -> Expectation:
    """What a measured change of the fitness is: the same, where it is within its standard error."""
    return "same" if abs(change) <= (error or 0.0) else "better" if change < 0 else "worse"


def stretches(n_layers: int, count: int) -> list[Stretch]:
    """Both parts of at most `count` runs of layers that are as long as each other, or nearly; attention first."""
    runs = min(count, n_layers)
    ends = [round(index * n_layers / runs) for index in range(runs + 1)]
    return [Stretch(part, first, after - 1) for part in PARTS for first, after in zip(ends, ends[1:], strict=False)]


def partners(
    take: Sequence[str], give: Sequence[str], n_layers: int, harmful: Collection[tuple[str, str]] = ()
) -> dict[str, list[str]]:
    """For every stretch that can be cut those that can be grown and have no layer in common with it.

    Pairs that are `harmful` are left out, as long as there are others.
    """
    places = {text: Stretch.of(text, n_layers).places for text in (*take, *give)}
    found = {one: [other for other in give if not places[one] & places[other]] for one in take}
    others = {one: [other for other in found[one] if (one, other) not in harmful] for one in take}
    return others if any(others.values()) else found


def shifted(budget: Budget, profile: Profile, take: Stretch, give: Stretch, share: float) -> Profile:
    """`profile` after a share of what the dense `take` weighs went to `give`; a proposal, to be projected on budget.

    At least one unit moves, and no more than the two have room for.

    Raises:
        ToolError: the two share a place, or one of them has no room.
    """
    space = budget.space
    if take.places & give.places:
        raise ToolError(f"a shift needs two stretches, {take} and {give} have layers in common")
    loss, gain = take.room(space, profile)[0], give.room(space, profile)[1]
    if not loss:
        raise ToolError(f"{take} has nothing to give: every layer of it keeps one unit")
    if not gain:
        raise ToolError(f"{give} is whole already: it can take nothing")
    own, other = budget.unit_price(take.part), budget.unit_price(give.part)
    weight = min(share * space.units(take.part) * len(take.layers) * own, loss * own, gain * other)
    taken = min(loss, max(1, round(weight / own)))
    given = min(gain, max(1, round(taken * own / other)))
    return _changed(space, _changed(space, profile, take, -taken), give, given)


def worth(budget: Budget, costs: Costs, profile: Profile, stretch: Stretch) -> tuple[float, float]:
    """What cutting some of a stretch costs, and what growing it by as much gains, in nats a token.

    By the table, as the difference over `some` of every layer, by an MLP unit's worth of parameters; 0 without room.
    """
    units = budget.space.units(stretch.part)
    step = max(1, round(SHARES["some"] * units))
    lost = gained = fewer = more = 0.0
    for layer in stretch.layers:
        row, width = costs.row(layer, stretch.part), profile.widths(stretch.part)[layer]
        less, plus = min(step, width - 1), min(step, units - width)
        lost, fewer = lost + row[width - less] - row[width], fewer + less
        gained, more = gained + row[width] - row[width + plus], more + plus
    weight = budget.unit_price(stretch.part) / budget.unit_price("mlp")
    return (lost / (fewer * weight) if fewer else 0.0), (gained / (more * weight) if more else 0.0)


def _changed(space: Space, profile: Profile, stretch: Stretch, change: int) -> Profile:
    """`profile` with so many units more or fewer in a stretch."""
    widths = profile.widths(stretch.part)
    others = frozenset(range(space.n_layers)) - frozenset(stretch.layers)
    found = spread(widths, sum(widths) + change, space.units(stretch.part), others)
    return Profile(found, profile.mlp) if stretch.part == "attention" else Profile(profile.attention, found)
