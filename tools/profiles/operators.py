"""Operators: how candidates are made from nothing, from one parent and from two.

Every operator is a pure function; randomness comes from the `random.Random` passed in. `uniform`, `random_profile`,
`level_switch` and `mutate` return profiles on budget. The level switch takes a unit here and gives one there, so it
needs no repair (EvoPress, Sieberling et al., arXiv 2410.14649); here it also exchanges attention groups for MLP units
of the same weight. Crossovers and edits return raw proposals that `Budget.project` repairs, so that what was repaired
can be told from what was proposed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget, Place
from self_pruner.tools.profiles.space import Space

# Standard deviations of a random profile's kept shares, from nearly uniform to very uneven.
UNEVENNESS = (0.03, 0.06, 0.12, 0.25)


class NothingMovesError(ToolError):
    """A profile from which no level switch leads anywhere, as where it is the only one on its budget."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A proposed change of one width, in units of that part."""

    layer: int
    part: Part
    change: int


def uniform(budget: Budget) -> Profile:
    """The profile on budget that keeps the same share everywhere, as nearly as whole units allow."""
    dense = budget.space.dense()
    return budget.project(dense.attention, dense.mlp).profile


def random_profile(budget: Budget, rng: random.Random) -> Profile:
    """A profile on budget scattered around the uniform one.

    The kept share of a place is the target's plus a term of its part, a trend over depth and its own noise, all at one
    scale drawn from `UNEVENNESS`.
    """
    space, scale = budget.space, rng.choice(UNEVENNESS)
    proposal: dict[Part, list[int]] = {}
    for part in PARTS:
        level = 1.0 - budget.sparsity + rng.normalvariate(0.0, scale)
        sensitivity = rng.normalvariate(0.0, scale)
        proposal[part] = []
        for layer in range(space.n_layers):
            depth = 2.0 * layer / max(space.n_layers - 1, 1) - 1.0
            width = space.units(part) * (level + sensitivity * depth + rng.normalvariate(0.0, scale))
            proposal[part].append(math.floor(width + rng.random()))  # rounded at random: a few groups vary too
    return budget.project(proposal["attention"], proposal["mlp"]).profile


def level_switch(budget: Budget, profile: Profile, rng: random.Random, step: int = 1) -> Profile:
    """Another profile on budget: about `step` MLP units' worth of parameters moved from one place to another.

    An attention place moves at least one whole KV group. Where that weighs more than `step` MLP units, attention is
    chosen that much less often, so that small steps remain small on average.

    Raises:
        ToolError: `profile` is off the budget.
        NothingMovesError: no place can give to any other.
    """
    if not budget.holds(profile):
        raise ToolError(f"a level switch starts on the budget, and {profile.key()} is off it: project it first")
    givers, takers = _by_chance(budget, rng, step), _by_chance(budget, rng, step)
    for giver in givers:
        for taker in takers:
            switched = _switched(budget, profile, giver, taker, step)
            if switched is not None and (settled := budget.settle(switched)) != profile:
                return settled
    raise NothingMovesError(
        f"a target of {budget.target_params:,} parameters leaves no unit of {profile.key()} that could be "
        "moved to another place: ask for one further from its bounds"
    )


def mutate(budget: Budget, profile: Profile, rng: random.Random, step: int = 1, switches: int = 1) -> Profile:
    """Another profile on budget, `switches` level switches away; one more where they cancelled out.

    Raises:
        NothingMovesError: there is no level switch.
    """
    mutant = profile
    for _ in range(switches):
        mutant = level_switch(budget, mutant, rng, step)
    return mutant if mutant != profile else level_switch(budget, profile, rng, step)


def crossover_range(a: Profile, b: Profile, first: int, last: int) -> Profile:
    """Layers `first` to `last`, both included, of `b` in `a`; a proposal, not yet on budget."""
    if not 0 <= first <= last < a.n_layers:
        raise ToolError(f"layers {first} to {last} are no range within 0 to {a.n_layers - 1}")
    return crossover_mask(a, b, [first <= layer <= last for layer in range(a.n_layers)])


def crossover_mask(a: Profile, b: Profile, mask: Sequence[bool]) -> Profile:
    """Both parts of a layer from `b` where `mask` is true, from `a` elsewhere; a proposal, not yet on budget."""
    if not len(mask) == a.n_layers == b.n_layers:
        raise ToolError(
            f"a crossover needs parents and a mask of equal length, got {a.n_layers}, {b.n_layers} and {len(mask)}"
        )
    sources = [b if take else a for take in mask]
    return Profile(
        tuple(source.attention[layer] for layer, source in enumerate(sources)),
        tuple(source.mlp[layer] for layer, source in enumerate(sources)),
    )


def apply_edits(space: Space, profile: Profile, edits: Sequence[Edit]) -> Profile:
    """`profile` with every edit added, later edits of a place on top of earlier ones; a proposal, not yet on budget.

    Widths may leave the space: the projection brings them back and counts that as repair. Hand it the places of the
    edits as `hold`, or the repair may undo them.
    """
    widths = {part: list(profile.widths(part)) for part in PARTS}
    for edit in edits:
        if not 0 <= edit.layer < space.n_layers:
            raise ToolError(f"there is no layer {edit.layer}: layers are 0 to {space.n_layers - 1}")
        widths[edit.part][edit.layer] += edit.change
    return Profile(tuple(widths["attention"]), tuple(widths["mlp"]))


def _by_chance(budget: Budget, rng: random.Random, step: int) -> list[Place]:
    """All places in random order, attention less likely to come first the more its unit outweighs the step."""
    weights: dict[Part, float] = {"attention": min(1.0, step / budget.group_in_blocks), "mlp": 1.0}
    places: list[Place] = [(layer, part) for layer in range(budget.space.n_layers) for part in PARTS]
    # Sorting by exponential waiting times draws without replacement in proportion to the weights.
    waiting = {place: rng.expovariate(weights[place[1]]) for place in places}
    return sorted(places, key=waiting.__getitem__)


def _switched(budget: Budget, profile: Profile, giver: Place, taker: Place, step: int) -> Profile | None:
    """`profile` after `giver` gave about `step` MLP units' worth to `taker`; None where no whole unit can move."""
    if giver == taker:
        return None
    if giver[1] == taker[1]:
        room = min(_room(budget.space, profile, giver, -1), _room(budget.space, profile, taker, 1))
        amount = min(room, _units(budget, giver[1], step))
        return _changed(profile, {giver: -amount, taker: amount}) if amount else None

    attention, mlp, sign = (giver, taker, -1) if giver[1] == "attention" else (taker, giver, 1)
    most = min(_units(budget, "attention", step), _room(budget.space, profile, attention, sign))
    room = _room(budget.space, profile, mlp, -sign)
    for amount in range(most, 0, -1):
        for change in budget.exchange(profile, sign * amount):
            if 0 < -sign * change <= room:
                return _changed(profile, {attention: sign * amount, mlp: change})
    return None


def _units(budget: Budget, part: Part, step: int) -> int:
    """`step` MLP units in whole units of `part`, at least one."""
    return max(1, round(step * budget.unit_price("mlp") / budget.unit_price(part)))


def _room(space: Space, profile: Profile, place: Place, sign: int) -> int:
    """Units that `place` can gain (`sign` 1) or lose (`sign` -1)."""
    layer, part = place
    width = profile.widths(part)[layer]
    return space.units(part) - width if sign > 0 else width - 1


def _changed(profile: Profile, changes: dict[Place, int]) -> Profile:
    for (layer, part), change in changes.items():
        profile = profile.with_width(layer, part, profile.widths(part)[layer] + change)
    return profile
