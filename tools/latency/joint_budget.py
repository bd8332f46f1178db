"""Both budgets at once: a parameter budget whose profiles the latency table also predicts to be fast enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.latency.time_budget import (
    NANOSECONDS,
    TOLERANCE,
    EvenBudget,
    LatencyBudget,
    TimedSpace,
    floored,
    in_ms,
)
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError, Place, feasible_range
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.sensitivity import Allocation


@dataclass(frozen=True)
class JointBudget(Budget):
    """A parameter budget whose profiles are also predicted to take no longer than a limit.

    At one parameter count the split between attention and MLP decides most of the time, so a projection first aims at
    those splits that even prices, right at the uniform profile, have as fast enough. Where the table says otherwise of
    a profile, units go from layer to layer, towards the fastest way to share out what each part keeps in all.

    Raises:
        ImpossibleTargetError: no profile has the parameters, or none that has them is so fast; says what would go.
    """

    timed: TimedSpace
    limit: int  # nanoseconds

    def __post_init__(self) -> None:
        if self.totals:
            return
        dense = self.timed.dense
        fastest = min(map(self._least, self.plain.totals))
        alone = f"{in_ms(self.limit)}, a speed-up of {dense / self.limit:.2f},"
        enough = LatencyBudget.of(self.space, self.timed.table, self.limit / NANOSECONDS).target_params
        raise ImpossibleTargetError(
            f"the two budgets contradict each other: with {self.target_params:,} parameters the latency table has "
            f"{in_ms(fastest)} at the least, a speed-up of {floored(dense / fastest)}, and {alone} takes "
            f"about {enough:,} parameters; {feasible_range(self.space)}"
        )

    @cached_property
    def plain(self) -> Budget:
        """The parameter budget alone."""
        return Budget(self.space, self.target_params)

    @cached_property
    def even(self) -> EvenBudget:
        """Even prices in time."""
        return self.timed.even(self.limit, uniform(self.plain))

    @property
    def longest(self) -> int:
        """What a profile may take, in nanoseconds."""
        return round(self.limit * (1 + TOLERANCE))

    @cached_property
    def totals(self) -> tuple[tuple[int, int], ...]:
        """Every (attention units, MLP units) of which a profile has the parameters and is fast enough."""
        return tuple(total for total in self.plain.totals if self._least(total) <= self.longest)

    @cached_property
    def aims(self) -> tuple[tuple[int, int], ...]:
        """Those that are fast enough by even prices too, where there are any."""
        return tuple(total for total in self.totals if self._evenly(total) <= self.longest) or self.totals

    def blocks(self, groups: int) -> tuple[int, ...]:
        """MLP totals that can meet both budgets beside `groups` attention units."""
        return tuple(blocks for own, blocks in self.totals if own == groups)

    def holds(self, profile: Profile) -> bool:
        """Whether `profile` meets both budgets."""
        return super().holds(profile) and self.timed.time(profile) <= self.longest

    def settle(self, profile: Profile) -> Profile:
        """`profile`, or one near it that the table has as fast enough."""
        return self.project(profile.attention, profile.mlp).profile

    def _repair(self, start: Profile, hold: frozenset[Place]) -> Profile:
        found = super()._repair(start, hold)
        for part in reversed(PARTS):
            found = self._hurried(found, part, hold)
        return found

    def _hurried(self, profile: Profile, part: Part, hold: Collection[Place]) -> Profile:
        """`profile` with units of one part moved from layer to layer until it is fast enough; held places move last.

        They move towards the fastest widths of the same total, the widest to the widest layer. Where all have moved in
        both parts it is the fastest profile of its totals.
        """
        row, widths = self.timed.rows[part], list(profile.widths(part))
        ranks = sorted(range(len(widths)), key=lambda layer: (widths[layer], layer))
        goal = dict(zip(ranks, sorted(self._fastest[part].widths(sum(widths))), strict=True))
        order = sorted(goal, key=lambda layer: ((layer, part) in hold, layer))
        left = self.timed.time(profile) - self.longest
        while left > 0 and (giver := next((layer for layer in order if widths[layer] > goal[layer]), None)) is not None:
            taker = next(layer for layer in order if widths[layer] < goal[layer])
            for layer, change in ((giver, -1), (taker, 1)):
                left += row[widths[layer] + change] - row[widths[layer]]
                widths[layer] += change
        return Profile(profile.attention, tuple(widths)) if part == "mlp" else Profile(tuple(widths), profile.mlp)

    @cached_property
    def _fastest(self) -> dict[Part, Allocation]:
        return {part: Allocation([self.timed.rows[part]] * self.space.n_layers) for part in PARTS}

    def _least(self, total: tuple[int, int]) -> int:
        """What the fastest profile of these totals takes."""
        found = zip(PARTS, total, strict=True)
        return self.timed.whole + round(sum(self._fastest[part].cost(units) for part, units in found))

    def _evenly(self, total: tuple[int, int]) -> int:
        groups, blocks = total
        return self.even.fixed + groups * self.even.group_price + blocks * self.even.block_price
