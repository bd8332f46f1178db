"""The budget of a model whose layers are all of one width, as stock classes want them.

Only the split between attention and MLP is left to choose, so the space is a handful of profiles: for every number of
attention units the MLP width that comes nearest to the target. A step of it is one MLP unit in every layer, and the
budget is met to within half a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles.budget import Budget, ImpossibleTargetError, Place, feasible_range


@dataclass(frozen=True)
class UniformBudget(Budget):
    """A budget met by profiles of one width alone.

    Raises:
        ImpossibleTargetError: none of them comes within half a step of the target.
    """

    heads: frozenset[int] = frozenset()  # attention units that a layer may have; empty: any

    def __post_init__(self) -> None:
        smallest, dense = self.space.params(self.space.smallest()), self.space.params(self.space.dense())
        if smallest <= self.target_params <= dense and self.profiles:
            return
        allowed = f", with {', '.join(map(str, sorted(self.heads)))} attention units a layer" if self.heads else ""
        raise ImpossibleTargetError(
            f"{self.target_params:,} parameters cannot be reached with layers of one width{allowed}: "
            f"{feasible_range(self.space)}"
        )

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        """Every profile that meets the budget, by rising attention."""
        space, found = self.space, []
        step = space.n_layers * space.block_params
        for groups in range(1, space.n_groups + 1):
            if self.heads and groups not in self.heads:
                continue
            rest = self.target_params - space.fixed_params - space.n_layers * groups * space.group_params
            blocks = min(max(round(rest / step), 1), space.n_blocks)
            if 2 * abs(rest - blocks * step) <= step:
                found.append(Profile((groups,) * space.n_layers, (blocks,) * space.n_layers))
        return tuple(found)

    def holds(self, profile: Profile) -> bool:
        """Whether `profile` is one of `profiles`."""
        return profile in self.profiles

    @cached_property
    def totals(self) -> tuple[tuple[int, int], ...]:
        """(attention units, MLP units) over all layers of every profile, by rising attention."""
        return tuple((sum(profile.attention), sum(profile.mlp)) for profile in self.profiles)

    def nearest(self, attention: Sequence[int], mlp: Sequence[int], hold: frozenset[Place]) -> Profile:
        """Of `profiles` the one whose share of attention is nearest to the proposal's; `hold` can't be kept to."""
        space = self.space

        def lean(groups: int, blocks: int) -> float:
            """The share of attention units kept less that of MLP units."""
            return (groups / space.n_groups - blocks / space.n_blocks) / space.n_layers

        wanted = lean(sum(attention), sum(mlp))
        return min(self.profiles, key=lambda one: abs(lean(sum(one.attention), sum(one.mlp)) - wanted))
