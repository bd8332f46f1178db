"""Slow, literal implementations of OWL, FLAP and the cut to whole units: one weight and one unit at a time."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT


@torch.no_grad()
def inputs_of(model: PreTrainedModel, text: Tensor) -> dict[nn.Module, Tensor]:
    """What every linear map of the decoder layers reads in one plain pass over the text, [tokens, in], float64."""
    rows: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows[module] = inputs[0].flatten(0, 1).double()

    linears = [module for module in model.model.layers.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_pre_hook(keep) for module in linears]
    model(text)
    for hook in hooks:
        hook.remove()
    return rows


def literal_ratio(layer: nn.Module, rows: dict[nn.Module, Tensor], multiple: float) -> float:
    """The percentage of |W_ij| * ||X_j|| over `multiple` times their mean, one weight at a time."""
    values = []
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            norms = [math.sqrt(sum(x * x for x in column)) for column in rows[module].T.tolist()]
            for row in module.weight.tolist():
                values += [abs(weight) * norm for weight, norm in zip(row, norms, strict=True)]
    mean = sum(values) / len(values)
    return 100 * sum(value > multiple * mean for value in values) / len(values)


def literal_keep_best(budget: Budget, scores: dict[Part, list[list[float]]]) -> Profile | None:
    """Every threshold is tried; then single MLP units go, worst first, or come back, best first, until it holds.

    None where MLP units run out before it does. Scores must differ.
    """
    space = budget.space
    # The first unit of each place stays, whatever its score.
    rest = {part: [sorted(row, reverse=True)[1:] for row in scores[part]] for part in PARTS}

    def above(attention: float, mlp: float) -> Profile:
        widths = {
            part: tuple(1 + sum(score >= threshold for score in row) for row in rest[part])
            for part, threshold in (("attention", attention), ("mlp", mlp))
        }
        return Profile(widths["attention"], widths["mlp"])

    steps = {part: {score for row in rest[part] for score in row} for part in PARTS}
    every = sorted({math.inf, *steps["attention"], *steps["mlp"]}, reverse=True)
    nearest = min(every, key=lambda step: abs(space.params(above(step, step)) - budget.target_params))
    ladder = sorted({math.inf, nearest, *steps["mlp"]}, reverse=True)
    rung = ladder.index(nearest)
    while 0 <= rung < len(ladder):
        profile = above(nearest, ladder[rung])
        if budget.holds(profile):
            return profile
        rung += 1 if space.params(profile) < budget.target_params else -1
    return None


def literal_flap(
    model: PreTrainedModel, text: Tensor, reordered: ElasticModel, square: bool
) -> dict[Part, list[list[float]]]:
    """Scores of groups and blocks of the model before it was reordered, channel by channel, by the lists of units."""
    rows = inputs_of(model, text)
    scores: dict[Part, list[list[float]]] = {"attention": [], "mlp": []}
    for index, layer in enumerate(model.model.layers):
        groups, channels = reordered.orders.attention[index].tolist(), reordered.orders.mlp[index].tolist()
        width = layer.self_attn.o_proj.in_features // 4
        units: dict[Part, list[list[int]]] = {
            "attention": [list(range(group * width, (group + 1) * width)) for group in groups],
            "mlp": [channels[first : first + MLP_UNIT] for first in range(0, len(channels), MLP_UNIT)],
        }
        for part, module in (("attention", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):
            fluctuation = [statistics.variance(column) for column in rows[module].T.tolist()]
            wifv = [
                variance * sum(w * w for w in column)
                for variance, column in zip(fluctuation, module.weight.T.tolist(), strict=True)
            ]
            if square and part == "attention":
                wifv = [score * score for score in wifv]
            mean, deviation = statistics.mean(wifv), statistics.stdev(wifv)
            scores[part].append([statistics.mean((wifv[c] - mean) / deviation for c in unit) for unit in units[part]])
    return scores
