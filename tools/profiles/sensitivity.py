"""Sensitivity: what removing units of one place costs, and the closed form that follows when costs are taken to add up.

One probe a place measures the fitness with only that place cut, at one width. The reconstruction error of the place's
output, known in closed form from its Gram matrix, gives the shape of the curve through that point: for small changes
the KL divergence is quadratic in the output's error, so proportional to its squared norm. Minimising the sum of the
curves over all profiles on budget is a knapsack with one choice a place; dynamic programming over unit totals solves it
exactly. Costs of several layers do not really add up, so this is where a search starts and what hints are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget, Place
from self_pruner.tools.profiles.space import Space

SHARES = (11 / 16, 12 / 16, 13 / 16, 14 / 16, 15 / 16, 1.0)  # of all attention units, that closed forms are tried with
ROUNDING = 1e-9  # nats a token by which sums of the same costs may differ


@dataclass(frozen=True, slots=True)
class Probe:
    """The fitness, in nats a token, of the dense model with one place cut to `width` units."""

    layer: int
    part: Part
    width: int
    fitness: float


@dataclass(frozen=True)
class Costs:
    """A table of costs that are taken to add up, in nats a token: `attention[layer][width]` and `mlp[layer][width]`.

    A row has one entry a width from 0 (never used: every place keeps a unit) to dense. In the table of the probes it
    falls with the width and ends with 0.
    """

    attention: tuple[tuple[float, ...], ...]
    mlp: tuple[tuple[float, ...], ...]

    def row(self, layer: int, part: Part) -> tuple[float, ...]:
        """The cost of every width of one place."""
        return self.attention[layer] if part == "attention" else self.mlp[layer]

    def total(self, profile: Profile) -> float:
        """The predicted fitness of `profile`."""
        return sum(self.row(layer, part)[width] for part in PARTS for layer, width in enumerate(profile.widths(part)))


@dataclass(frozen=True, slots=True)
class Marginal:
    """What the last units of a place are worth at its present width."""

    layer: int
    part: Part
    width: int
    cost: float  # nats a token for each MLP unit's worth of parameters


def cost_table(space: Space, probes: Sequence[Probe], curves: Mapping[Place, Sequence[float]]) -> Costs:
    """The cost of every width of every place.

    Args:
        space: units of the model.
        probes: one for every place with more than one unit, keeping at least one and fewer than all of them.
        curves: for every place the squared reconstruction error of each width, 0 to dense ([units + 1] numbers).

    Raises:
        ToolError: a place without a probe or with two, a width or a curve of the wrong length, or a number that
            is not finite.
    """
    by_place: dict[Place, Probe] = {}
    for probe in probes:
        place: Place = (probe.layer, probe.part)
        if place in by_place:
            raise ToolError(f"layer {probe.layer} {probe.part} was probed twice: one probe a place")
        by_place[place] = probe
    rows: dict[Part, list[tuple[float, ...]]] = {part: [] for part in PARTS}
    for part in PARTS:
        for layer in range(space.n_layers):
            if space.units(part) == 1:  # nothing to cut, so nothing to probe
                rows[part].append((0.0, 0.0))
                continue
            if (layer, part) not in by_place:
                raise ToolError(f"layer {layer} {part} was not probed: every place needs one probe")
            rows[part].append(_row(space, by_place[layer, part], curves[layer, part]))
    return Costs(tuple(rows["attention"]), tuple(rows["mlp"]))


def closed_form(budget: Budget, costs: Costs) -> Profile:
    """The profile on budget with the least total cost, exactly (the one found first among equals).

    Exactly by the prices of units; a budget that asks for more than their sum settles what is left.
    Time grows with n_layers^2 * units^2: milliseconds for 30 layers of 48 MLP units, a second or so for 80 of 224.

    Args:
        budget: the target.
        costs: in nats a token; infinite for widths that are ruled out.
    """
    return _cheapest(budget, Allocation(costs.attention), Allocation(costs.mlp), budget.totals)


def closed_forms_around(budget: Budget, costs: Costs, centre: Profile) -> Iterator[Profile]:
    """The profile of least cost for each division between the parts, cheapest first, before the budget settles it.

    They end where one costs more than `centre`, a profile on budget whose division is among those that are tried. Other
    arguments as for `closed_form`; the widths of `centre` are never ruled out.
    """
    attention, mlp = Allocation(costs.attention), Allocation(costs.mlp)
    cost = {total: attention.cost(total[0]) + mlp.cost(total[1]) for total in budget.totals_around(centre)}
    for groups, blocks in sorted(cost, key=lambda total: (cost[total], total)):
        if cost[groups, blocks] > costs.total(centre) + ROUNDING:
            return
        yield Profile(attention.widths(groups), mlp.widths(blocks))


def closed_forms(budget: Budget, costs: Costs) -> list[Profile]:
    """The closed form, and those that are best among the profiles with a given share of all attention units.

    Probes cut one place of a dense model. What cutting attention and MLP of the same layers costs together is in no
    probe, so the sum is least to be trusted in how it divides the budget between the two; which of these profiles is
    the best has to be measured. The first is `closed_form`; equal ones are left out.
    """
    attention, mlp = Allocation(costs.attention), Allocation(costs.mlp)
    found = [_cheapest(budget, attention, mlp, budget.totals)]
    for groups in attention_totals(budget):
        found.append(_cheapest(budget, attention, mlp, [total for total in budget.totals if total[0] == groups]))
    return list(dict.fromkeys(found))


def attention_totals(budget: Budget) -> list[int]:
    """Attention units in all that are nearest to each of `SHARES` among those that the budget allows, rising."""
    whole = budget.space.n_layers * budget.space.n_groups
    allowed = sorted({groups for groups, _ in budget.totals})
    return sorted({min(allowed, key=lambda groups: abs(groups - share * whole)) for share in SHARES})


def _cheapest(budget: Budget, attention: Allocation, mlp: Allocation, totals: Sequence[tuple[int, int]]) -> Profile:
    groups, blocks = min(totals, key=lambda total: (attention.cost(total[0]) + mlp.cost(total[1]), total))
    return budget.settle(Profile(attention.widths(groups), mlp.widths(blocks)))


def rank_places(budget: Budget, costs: Costs, profile: Profile, step: int = 1) -> tuple[list[Marginal], list[Marginal]]:
    """Where to cut, cheapest first, and where to grow, greatest gain first, by the table.

    Each place is judged by the change of cost over about `step` MLP units (at least one whole unit, at most what the
    place has room for) and by parameter, so attention and MLP compare. Places without room are left out.
    """
    space = budget.space
    cut: list[Marginal] = []
    grow: list[Marginal] = []
    for part in PARTS:
        units = max(1, round(step * budget.unit_price("mlp") / budget.unit_price(part)))
        worth = budget.unit_price(part) / budget.unit_price("mlp")
        for layer, width in enumerate(profile.widths(part)):
            row = costs.row(layer, part)
            if less := min(units, width - 1):
                cut.append(Marginal(layer, part, width, (row[width - less] - row[width]) / (less * worth)))
            if more := min(units, space.units(part) - width):
                grow.append(Marginal(layer, part, width, (row[width] - row[width + more]) / (more * worth)))
    cut.sort(key=lambda marginal: (marginal.cost, marginal.layer, marginal.part))
    grow.sort(key=lambda marginal: (-marginal.cost, marginal.layer, marginal.part))
    return cut, grow


def _row(space: Space, probe: Probe, curve: Sequence[float]) -> tuple[float, ...]:
    """The curve, made to fall with the width and scaled through the probe; linear where the curve says nothing."""
    dense = space.units(probe.part)
    name = f"layer {probe.layer} {probe.part}"
    if not 1 <= probe.width < dense:
        raise ToolError(f"{name} was probed at width {probe.width}: a probe keeps 1 to {dense - 1} units")
    shape = torch.as_tensor(curve, dtype=torch.float64)
    if shape.shape != (dense + 1,):
        raise ToolError(f"{name} needs a curve of {dense + 1} widths and got {shape.numel()}")
    measured = torch.tensor(probe.fitness, dtype=torch.float64)
    if not (torch.isfinite(shape).all() and torch.isfinite(measured)):
        raise ToolError(f"{name} has a probe or a curve that is not finite: probe it again at a greater width")
    shape = (shape - shape[-1]).clamp_min(0.0)
    shape = shape.flip(0).cummax(0).values.flip(0)  # damping and rounding can make an error rise with the width
    if shape[probe.width] <= 0.0:
        shape = torch.linspace(dense, 0.0, dense + 1, dtype=torch.float64)
    # A measured KL can fall below zero by rounding alone.
    return tuple((measured.clamp_min(0.0) * shape / shape[probe.width]).tolist())


class Allocation:
    """The cheapest way to give each possible total of units to the layers of one part, each getting at least one."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.choices: list[torch.Tensor] = []  # [totals of layers 0..l]: units of layer l in the cheapest way there
        best = torch.zeros(1, dtype=torch.float64)  # [totals]: cost of the layers so far; index 0 is one unit in each
        for row in rows:
            units = len(row) - 1
            cheapest = torch.full((best.numel() + units - 1,), float("inf"), dtype=torch.float64)
            choice = torch.zeros(cheapest.numel(), dtype=torch.int32)
            for width in range(1, units + 1):
                window = slice(width - 1, width - 1 + best.numel())
                cost = best + row[width]
                better = cost < cheapest[window]
                cheapest[window] = torch.where(better, cost, cheapest[window])
                choice[window].masked_fill_(better, width)
            best = cheapest
            self.choices.append(choice)
        self.best = best.tolist()

    def cost(self, total: int) -> float:
        return self.best[total - len(self.choices)]

    def widths(self, total: int) -> tuple[int, ...]:
        widths: list[int] = []
        for layer in range(len(self.choices) - 1, -1, -1):
            width = int(self.choices[layer][total - (layer + 1)])
            widths.append(width)
            total -= width
        return tuple(reversed(widths))
