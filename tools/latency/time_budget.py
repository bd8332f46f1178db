"""A budget in time: profiles that a latency table predicts to take so long.

Predictions are sums over places of what their widths take, which need not fall evenly with the width. So a profile is
first brought near the target by even prices, those of the straight lines through the table's rows, with everything that
a parameter budget can do; what the table then says otherwise is made up for by aiming a little above or below.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.latency.table import LatencyTable
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError, Place
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.space import Space

TOLERANCE = 0.0025  # of the target, where half of the largest step of a unit is less
CHEAPEST = 0.05  # what a unit costs at the least, as a share of what its parameters would
AIMS = 12  # times that a projection aims before it goes unit by unit
NANOSECONDS = 1_000_000  # in a millisecond: prices are whole numbers of these


@dataclass(frozen=True)
class EvenBudget(Budget):
    """A budget in prices that are the same for every unit of a part, and are not parameters."""

    group_price: int
    block_price: int
    fixed: int
    target: int

    def __post_init__(self) -> None:
        """It may ask for anything: whether a profile reaches it shows in `totals`."""

    def unit_price(self, part: Part) -> int:
        """What one unit of `part` costs."""
        return self.group_price if part == "attention" else self.block_price

    @property
    def fixed_price(self) -> int:
        """What no profile saves."""
        return self.fixed

    @property
    def target_price(self) -> int:
        """What a profile must cost."""
        return self.target


@dataclass(frozen=True)
class TimedSpace:
    """What profiles of a space take by a latency table, in nanoseconds of one request."""

    space: Space
    table: LatencyTable

    @cached_property
    def rows(self) -> dict[Part, tuple[int, ...]]:
        """What a place of each width takes beyond a dense one, 0 to dense, never falling with the width.

        What a measurement had fall is noise, or a width that no profile should be rewarded for. One that was slower
        than dense counts as dense, which leaves what narrower ones save as it was measured.
        """
        found = {}
        for part in PARTS:
            cut = (self.table.change(part, width) for width in range(1, self.space.units(part)))
            raw = [*(min(0, round(NANOSECONDS * one.request(self.table.decode))) for one in cut), 0]
            even = [(max(raw[: place + 1]) + min(raw[place:])) // 2 for place in range(len(raw))]
            found[part] = (even[0], *even)  # no place has a width of 0
        return found

    @cached_property
    def dense(self) -> int:
        return round(NANOSECONDS * self.table.dense.request(self.table.decode))

    @cached_property
    def whole(self) -> int:
        """The dense widths in the format of pruned models."""
        return self.dense + round(NANOSECONDS * self.table.offset.request(self.table.decode))

    def time(self, profile: Profile) -> int:
        """A profile of the space."""
        return self.whole + sum(self.rows[part][width] for part in PARTS for width in profile.widths(part))

    def sensitivity(self, part: Part) -> int:
        """What a unit takes on the straight line from the dense width that fits a row best."""
        row, dense = self.rows[part], self.space.units(part)
        cuts = [(dense - width, -row[width]) for width in range(1, dense)]
        fitted = sum(cut * saved for cut, saved in cuts) / max(1, sum(cut * cut for cut, _ in cuts))
        by_params = self.dense * self.space.unit_params(part) / self.space.params(self.space.dense())
        return max(1, round(max(fitted, CHEAPEST * by_params)))

    def even(self, target: int, around: Profile) -> EvenBudget:
        """Even prices that are right at the profile `around`."""
        prices = {part: self.sensitivity(part) for part in PARTS}
        units = sum(prices[part] * sum(around.widths(part)) for part in PARTS)
        return EvenBudget(self.space, 0, prices["attention"], prices["mlp"], self.time(around) - units, target)


@dataclass(frozen=True)
class LatencyBudget(Budget):
    """A budget that profiles meet whose predicted time is that of the target, to within `TOLERANCE`.

    `target_params` are those of the uniform profile: what others of the same time have nearly.

    Raises:
        ImpossibleTargetError: no profile is predicted to take so long; the sentence names the range.
    """

    timed: TimedSpace
    target_time: int  # nanoseconds

    def __post_init__(self) -> None:
        fastest, dense, whole = self.timed.time(self.space.smallest()), self.timed.dense, self.timed.whole
        if not fastest <= self.target_time <= whole:
            raise ImpossibleTargetError(
                f"{in_ms(self.target_time)}, a speed-up of {dense / self.target_time:.2f}, cannot be reached: by the "
                f"latency table one unit everywhere takes {in_ms(fastest)}, a speed-up of {floored(dense / fastest)}, "
                f"the most that is reachable, and the dense {'model' if whole == dense else 'widths'} {in_ms(whole)}"
            )

    @classmethod
    def of(cls, space: Space, table: LatencyTable, target_ms: float) -> LatencyBudget:
        """The budget of so many milliseconds for one request of the table.

        Raises:
            ImpossibleTargetError: no profile is predicted to take so long.
        """
        budget = cls(space, 0, TimedSpace(space, table), round(NANOSECONDS * target_ms))
        return replace(budget, target_params=space.params(uniform(budget)))

    @cached_property
    def even(self) -> EvenBudget:
        """Even prices that are right where the uniform profile meets the target."""
        dense = self.space.dense()
        found = self.timed.even(self.target_time, dense)
        for _ in range(AIMS):
            around = found._repair(dense, frozenset()) if found.totals else self.space.smallest()
            found = self.timed.even(self.target_time, around)
            if abs(self.timed.time(around) - self.target_time) <= self.tolerance:
                break
        return found

    @cached_property
    def tolerance(self) -> int:
        """How far from the target a profile may be, in nanoseconds: half of the largest step of one unit, or more.

        So a target can always be reached by single steps, however uneven the table is.
        """
        rows = (self.timed.rows[part][1:] for part in PARTS)
        largest = max(high - low for row in rows for low, high in zip((row[0], *row), row, strict=False))
        return max((largest + 1) // 2, round(TOLERANCE * self.target_time))

    @cached_property
    def totals(self) -> tuple[tuple[int, int], ...]:
        """Every (attention units, MLP units) that meets the target by even prices, by rising attention.

        Where none does, as when one attention unit takes longer than all MLP units, those of the profile on the target
        that is nearest to the dense one.
        """
        if even := tuple((groups, blocks) for groups in self._group_totals() for blocks in self.blocks(groups)):
            return even
        nearest = self._repair(self.space.dense(), frozenset())
        return ((sum(nearest.attention), sum(nearest.mlp)),)

    def totals_around(self, profile: Profile) -> tuple[tuple[int, int], ...]:
        """Every (attention units, MLP units) that takes as long as `profile` by even prices that are right there.

        Those of `totals` are right at the uniform profile, and need not have those of another one on the budget.
        """
        return self.timed.even(self.timed.time(profile), profile).totals

    def unit_price(self, part: Part) -> int:
        """Nanoseconds of a unit, evenly."""
        return self.even.unit_price(part)

    @property
    def fixed_price(self) -> int:
        """Nanoseconds that no profile saves."""
        return self.even.fixed_price

    @property
    def target_price(self) -> int:
        """Nanoseconds of a request."""
        return self.target_time

    def holds(self, profile: Profile) -> bool:
        """Whether `profile` belongs to the space and is predicted to take as long as the target."""
        return self.space.contains(profile) and abs(self.timed.time(profile) - self.target_time) <= self.tolerance

    def settle(self, profile: Profile) -> Profile:
        """`profile`, or the nearest one that the table has on the target."""
        return self.project(profile.attention, profile.mlp).profile

    def exchange(self, profile: Profile, groups: int) -> tuple[int, ...]:
        """The change of the MLP total that takes as long as so many attention units."""
        return (round(-groups * self.unit_price("attention") / self.unit_price("mlp")),)

    def _repair(self, start: Profile, hold: frozenset[Place]) -> Profile:
        """The projection by even prices, aimed again by what the table says of where it came."""
        lowest, highest = (self.even.price(profile) for profile in (self.space.smallest(), self.space.dense()))
        aim, best = self.target_time, start
        for _ in range(AIMS):
            aimed = replace(self.even, target=min(max(aim, lowest), highest))
            if not aimed.totals:
                break
            found = aimed._repair(start, hold)
            if self._off(found) < self._off(best) or best is start:
                best = found
            if self.holds(found):
                return found
            aim += self.target_time - self.timed.time(found)
        return self._unit_by_unit(best, hold)

    def _unit_by_unit(self, profile: Profile, hold: Collection[Place]) -> Profile:
        """The unit whose step comes nearest to the target, again and again; held places and attention last.

        A step is at most twice the tolerance, so one comes nearer whenever the target is further off than that. Steps
        of no effect, on widths that take alike, may come first.
        """
        while not self.holds(profile):
            missing = self.target_time - self.timed.time(profile)
            sign = 1 if missing > 0 else -1
            steps = []
            for part in PARTS:
                row = self.timed.rows[part]
                for layer, width in enumerate(profile.widths(part)):
                    if 1 <= width + sign <= self.space.units(part):
                        left = abs(missing - (row[width + sign] - row[width]))
                        idle = left >= abs(missing)
                        steps.append((idle, (layer, part) in hold, part == "attention", left, layer, part))
            *_, layer, part = min(steps)
            profile = profile.with_width(layer, part, profile.widths(part)[layer] + sign)
        return profile

    def _off(self, profile: Profile) -> int:
        return abs(self.timed.time(profile) - self.target_time)


def in_ms(nanoseconds: int) -> str:
    """A time as text."""
    return f"{nanoseconds / NANOSECONDS:,.1f} ms"


def floored(ratio: float) -> str:
    """A ratio rounded to the feasible side."""
    return f"{int(100 * ratio) / 100:.2f}"
