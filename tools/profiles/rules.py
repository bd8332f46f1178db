"""Rules of thumb: profiles that need no measurement, or one or two numbers chosen among a handful.

- `ends`: the first and the last layers whole. Early layers pass their errors on to all others, and the last ones have
  nobody after them to make up for theirs. With attention whole besides, it is hard to beat by a search.
- `arithmetic`: rates that rise from layer to layer by one difference (ATP, Huang et al., arXiv 2502.14770).
- `llm_pruner`: equal rates in all but the first and last layers (Ma et al., arXiv 2305.11627, as released for LLaMA).
"""

from __future__ import annotations

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget, Place

ENDS = ((1, 1), (2, 2), (4, 3))  # layers left whole at the beginning and at the end
STEEPNESS = (0.25, 0.5, 0.75, 1.0)  # of the largest difference that leaves every rate between 0 and 1
LLM_PRUNER_ENDS = (4, 2)


def ends(budget: Budget, first: int, last: int) -> Profile:
    """The profile on budget with attention, the first and the last layers whole and the MLPs of all others alike.

    A budget that leaves these others less than one unit takes the rest from what is whole, everywhere alike.

    Raises:
        ToolError: a negative number of layers, or more than there are.
    """
    held = {(layer, PARTS[0]) for layer in range(budget.space.n_layers)}
    return _alike(budget, held | {(layer, PARTS[1]) for layer in _whole(budget, first, last)})


def llm_pruner(budget: Budget) -> Profile:
    """The profile on budget with the first four and the last two layers whole, and one rate in all others.

    Of a model with so few layers that these are more than half of all, proportionally fewer are whole.
    """
    layers = budget.space.n_layers
    first, last = LLM_PRUNER_ENDS if layers >= 2 * sum(LLM_PRUNER_ENDS) else (layers // 3, layers // 6)
    return _alike(budget, {(layer, part) for part in PARTS for layer in _whole(budget, first, last)})


def arithmetic(budget: Budget, steepness: float) -> Profile:
    """The profile on budget whose rates rise with depth by one difference, in attention and MLP alike.

    Args:
        budget: what to meet.
        steepness: the difference, as a share of the largest that leaves every rate between 0 and 1.

    Raises:
        ToolError: a steepness that is not from 0 to 1.
    """
    if not 0 <= steepness <= 1:
        raise ToolError(f"the steepness of rates must be 0 to 1, not {steepness}")
    space, middle = budget.space, (budget.space.n_layers - 1) / 2
    reach = steepness * min(budget.sparsity, 1 - budget.sparsity)  # of the first and the last layer from the mean
    kept = [1 - budget.sparsity - reach * (layer - middle) / max(middle, 1) for layer in range(space.n_layers)]

    def widths(part: Part) -> list[int]:
        return [round(share * space.units(part)) for share in kept]

    # of the two, MLPs have the finer units: they make up for what rounding does to attention
    held = [(layer, PARTS[0]) for layer in range(space.n_layers)]
    return budget.project(widths("attention"), widths("mlp"), hold=held).profile


def _whole(budget: Budget, first: int, last: int) -> list[int]:
    layers = budget.space.n_layers
    if min(first, last) < 0 or first + last > layers:
        raise ToolError(f"{first} first and {last} last layers cannot be whole in a model of {layers}")
    return [*range(first), *range(layers - last, layers)]


def _alike(budget: Budget, held: set[Place]) -> Profile:
    """The dense profile cut to the budget by one share in every place that is not held."""
    dense = budget.space.dense()
    return budget.project(dense.attention, dense.mlp, hold=held).profile
