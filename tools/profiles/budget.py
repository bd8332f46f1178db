"""The budget: the parameter count every profile must hit, and the least change that brings a proposal there.

A profile holds the budget when its parameters are within half an MLP unit of the target. Moving a place by one unit
moves `unit_params` parameters, so the distance of two profiles is the parameters moved between them, counted in MLP
units. It depends on nothing but the two totals (attention groups, MLP blocks) as long as no two layers of one part
move in opposite directions. So a projection first chooses the totals, by enumeration, then spreads each over the
layers. Many totals are about equally near; among those within one MLP unit of the nearest, the one is taken that cuts
attention and MLP by the same share (water-filling: x_i = clamp(p_i - lambda * N_i, 1, N_i)).
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from self_pruner.memory.errors import SelfPrunerError, SettingsError, ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.space import Space

Place = tuple[int, Part]  # a layer and one of its parts: what has a width

_PARAMS_TEXT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([KMBT]?)", re.IGNORECASE | re.ASCII)
_PARAMS_SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class ImpossibleTargetError(SelfPrunerError):
    """A sparsity or parameter count that no profile of the model reaches."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A proposal repaired to the budget, and how much the repair changed it."""

    profile: Profile
    changed_units: int  # units added or removed, a KV group and an MLP unit counting one each
    moved: float  # the same weighed by parameters, in MLP units


@dataclass(frozen=True)
class Budget:
    """The target of a search: `target_params` parameters in all, to within half an MLP unit.

    Raises:
        ImpossibleTargetError: no profile of `space` comes that near; the sentence names the feasible range.
    """

    space: Space
    target_params: int

    def __post_init__(self) -> None:
        smallest, dense = self.space.params(self.space.smallest()), self.space.params(self.space.dense())
        wanted = f"{self.target_params:,} parameters"
        if not smallest <= self.target_params <= dense:
            raise ImpossibleTargetError(f"{wanted} cannot be reached: {feasible_range(self.space)}")
        if not self.totals:  # only where one KV group outweighs all removable MLP units together
            reachable = [self._nearest_params(groups) for groups in self._group_totals()]
            below = max(params for params in reachable if params < self.target_params)
            above = min(params for params in reachable if params > self.target_params)
            raise ImpossibleTargetError(
                f"{wanted} fall in a gap, the nearest reachable counts are {below:,} and {above:,}: "
                f"{feasible_range(self.space)}"
            )

    @classmethod
    def from_sparsity(cls, space: Space, sparsity: float) -> Budget:
        """The budget that removes a share of the decoder-block parameters (0.3 removes 30%)."""
        dense = space.prunable_params(space.dense())
        if not 0 <= sparsity <= space.sparsity(space.smallest()):
            raise ImpossibleTargetError(f"a sparsity of {sparsity} cannot be reached: {feasible_range(space)}")
        target = round((1 - sparsity) * dense)
        return cls(space, space.fixed_params + max(target, space.prunable_params(space.smallest())))

    @property
    def sparsity(self) -> float:
        """Share of decoder-block parameters that the target removes."""
        prunable = self.target_params - self.space.fixed_params
        return 1.0 - prunable / self.space.prunable_params(self.space.dense())

    # What is budgeted. Here it is parameters; budgets of another kind say what a unit costs in theirs.

    def unit_price(self, part: Part) -> int:
        """What one unit of `part` costs."""
        return self.space.unit_params(part)

    @property
    def fixed_price(self) -> int:
        """What no profile saves."""
        return self.space.fixed_params

    @property
    def target_price(self) -> int:
        """What a profile must cost, to within half an MLP unit."""
        return self.target_params

    def price(self, profile: Profile) -> int:
        return self.fixed_price + sum(self.unit_price(part) * sum(profile.widths(part)) for part in PARTS)

    @property
    def group_in_blocks(self) -> float:
        """The weight of an attention unit in MLP units."""
        return self.unit_price("attention") / self.unit_price("mlp")

    def holds(self, profile: Profile) -> bool:
        """Whether `profile` belongs to the space and is within half an MLP unit of the target."""
        return self.space.contains(profile) and (
            2 * abs(self.price(profile) - self.target_price) <= self.unit_price("mlp")
        )

    def settle(self, profile: Profile) -> Profile:
        """`profile`, which holds by the prices of its units, on the budget: itself, where these prices are all."""
        return profile

    def exchange(self, profile: Profile, groups: int) -> tuple[int, ...]:
        """Changes of the MLP total that make up for so many attention units more: none, one, or two."""
        blocks = sum(profile.mlp)
        return tuple(total - blocks for total in self.blocks(sum(profile.attention) + groups))

    def blocks(self, groups: int) -> tuple[int, ...]:
        """MLP totals that meet the target beside `groups` attention groups, over all layers: none, one, or two.

        Two only where the target lies exactly between two MLP units.
        """
        space, unit = self.space, self.unit_price("mlp")
        below, rest = divmod(self.target_price - self.fixed_price - groups * self.unit_price("attention"), unit)
        near = [below] if 2 * rest <= unit else []
        near += [below + 1] if 2 * rest >= unit else []
        return tuple(total for total in near if space.n_layers <= total <= space.n_layers * space.n_blocks)

    @cached_property
    def totals(self) -> tuple[tuple[int, int], ...]:
        """Every (attention groups, MLP blocks) over all layers that meets the target, by rising attention."""
        return tuple((groups, blocks) for groups in self._group_totals() for blocks in self.blocks(groups))

    def totals_around(self, profile: Profile) -> tuple[tuple[int, int], ...]:
        """Those that a step from `profile`, which is on the budget, chooses from: its own are among them."""
        return self.totals

    @property
    def aims(self) -> tuple[tuple[int, int], ...]:
        """Those of the totals that a projection chooses from."""
        return self.totals

    def project(self, attention: Sequence[int], mlp: Sequence[int], hold: Collection[Place] = ()) -> Projection:
        """The profile on budget nearest to a proposal, to within one MLP unit; a valid proposal is returned as it is.

        Args:
            attention: proposed KV groups, one integer a layer; any integers.
            mlp: proposed MLP units, one integer a layer; any integers.
            hold: places the repair leaves alone where others can take the change instead, so that an edit of
                those places is not undone by its own repair. It never makes the repair larger.

        Raises:
            ToolError: not one integer a layer.
        """
        for part, widths in (("attention", attention), ("mlp", mlp)):
            if len(widths) != self.space.n_layers:
                raise ToolError(f"{part} needs {self.space.n_layers} widths, one a layer, and got {len(widths)}")
        profile = self.nearest(attention, mlp, frozenset(hold))
        groups = sum(abs(new - old) for new, old in zip(profile.attention, attention, strict=True))
        blocks = sum(abs(new - old) for new, old in zip(profile.mlp, mlp, strict=True))
        return Projection(profile, groups + blocks, groups * self.group_in_blocks + blocks)

    def nearest(self, attention: Sequence[int], mlp: Sequence[int], hold: frozenset[Place]) -> Profile:
        """The profile that `project` returns, of one integer a layer."""
        clamped = Profile(_clamp(attention, self.space.n_groups), _clamp(mlp, self.space.n_blocks))
        return clamped if self.holds(clamped) else self._repair(clamped, hold)

    def _repair(self, start: Profile, hold: frozenset[Place]) -> Profile:
        space = self.space
        groups, blocks = sum(start.attention), sum(start.mlp)
        group_price, block_price = self.unit_price("attention"), self.unit_price("mlp")

        def distance(total: tuple[int, int]) -> int:
            return group_price * abs(total[0] - groups) + block_price * abs(total[1] - blocks)

        least = min(map(distance, self.aims))
        near = [total for total in self.aims if distance(total) <= least + block_price]
        level = self._water_level(start, hold)
        total = min(near, key=lambda total: (abs(total[0] - level), distance(total), total))
        held = {part: {layer for layer, of in hold if of == part} for part in PARTS}
        return Profile(
            spread(start.attention, total[0], space.n_groups, held["attention"]),
            spread(start.mlp, total[1], space.n_blocks, held["mlp"]),
        )

    def _water_level(self, start: Profile, hold: frozenset[Place]) -> float:
        """Attention groups in all when every free place changes by the same share of its dense width."""
        space = self.space
        free: dict[Part, list[int]] = {"attention": [], "mlp": []}
        fixed: dict[Part, int] = {"attention": 0, "mlp": 0}
        for part in free:
            for layer, width in enumerate(start.widths(part)):
                if (layer, part) in hold:
                    fixed[part] += width
                else:
                    free[part].append(width)

        def units(part: Part, share: float) -> float:
            dense = space.units(part)
            cut = share * dense
            return fixed[part] + sum(min(max(width - cut, 1), dense) for width in free[part])

        group_price, block_price = self.unit_price("attention"), self.unit_price("mlp")
        target = self.target_price - self.fixed_price
        low, high = -1.0, 1.0  # a share of -1 makes every free place dense, of 1 leaves one unit of it
        for _ in range(40):  # to 2e-12 of a dense width
            share = (low + high) / 2
            if group_price * units("attention", share) + block_price * units("mlp", share) > target:
                low = share
            else:
                high = share
        return units("attention", high)

    def _group_totals(self) -> range:
        return range(self.space.n_layers, self.space.n_layers * self.space.n_groups + 1)

    def _nearest_params(self, groups: int) -> int:
        space = self.space
        rest = self.target_params - space.fixed_params - groups * space.group_params
        blocks = min(max(round(rest / space.block_params), space.n_layers), space.n_layers * space.n_blocks)
        return space.fixed_params + groups * space.group_params + blocks * space.block_params


def feasible_range(space: Space) -> str:
    """What a target may be, as text: both as parameters and as sparsity, rounded to the feasible side."""
    smallest, dense = space.params(space.smallest()), space.params(space.dense())
    sparsest = math.floor(space.sparsity(space.smallest()) * 1e4) / 1e4
    return f"this model can keep {smallest:,} to {dense:,} parameters, a sparsity of {sparsest} down to 0"


def parse_params(text: str) -> int:
    """A parameter count from text such as `49B`, `134.5M`, `70_000_000_000` or `8,030,261,248`.

    Raises:
        SettingsError: anything else, and zero.
    """
    match = _PARAMS_TEXT.fullmatch(text.strip())
    if match is not None:
        digits = match[1].replace(",", "")
        if count := int(Decimal(digits) * _PARAMS_SCALE[match[2].upper()]):
            return count
    raise SettingsError(f"{text!r} is no parameter count: write a positive number such as 49B, 134.5M or 70000000")


def _clamp(widths: Sequence[int], dense: int) -> tuple[int, ...]:
    return tuple(min(max(width, 1), dense) for width in widths)


def spread(widths: Sequence[int], total: int, dense: int, held: Collection[int]) -> tuple[int, ...]:
    """`widths` changed in one direction only until they sum to `total`, free layers first, then held ones."""
    changed = list(widths)
    free = [layer for layer in range(len(widths)) if layer not in held]
    for layers in (free, sorted(held)):
        missing = total - sum(changed)
        sign = 1 if missing > 0 else -1
        room = {layer: dense - changed[layer] if missing > 0 else changed[layer] - 1 for layer in layers}
        for layer, change in _shares(room, abs(missing), zlib.crc32(repr(widths).encode())):
            changed[layer] += sign * change
    return tuple(changed)


def _shares(room: dict[int, int], amount: int, start: int) -> Iterator[tuple[int, int]]:
    """`amount` shared out as equally as the room of every layer allows; what is left over goes to layers evenly apart.

    `start` says which of the layers that tie comes first. It is taken from the proposal and not fixed, for a fixed
    layer would collect the last unit of every repair of a search.
    """

    def taken(depth: int) -> int:
        return sum(min(space, depth) for space in room.values())

    deepest = max(room.values(), default=0)
    depth = bisect_right(range(deepest + 1), amount, key=taken) - 1
    tied = [layer for layer, space in room.items() if space > depth]
    extra = amount - taken(depth) if tied else 0
    last = {tied[(index * len(tied) // extra + start) % len(tied)] for index in range(extra)}
    for layer, space in room.items():
        yield layer, min(space, depth) + (layer in last)
