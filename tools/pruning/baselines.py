"""Closed forms of other work: profiles that two published rules give at once, without a search.

- OWL (Yin et al., arXiv 2310.05175): a layer with a larger share of outlying weights is cut less.
- FLAP (An et al., arXiv 2312.11983), its adaptive structure AL-AM: one threshold for all units of all layers, whose
  scores are standardised within each layer and part.

Where a paper and its released code differ, the default is the code, for that is what published figures were made with.
Both rules end in a score for every unit; `keep_best` turns scores into the profile on budget, so that the two are cut
to whole units in the same way. A profile says how many units a place keeps; which ones is the elastic model's order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning.calibration import INPUTS
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import flap_wifv
from self_pruner.tools.pruning.store import linear, output_projection

# --- OWL ------------------------------------------------------------------------------------------------------------


def owl(
    budget: Budget, elastic: ElasticModel, *, multiple: float = 5.0, spread: float = 0.08, bounded: bool = False
) -> Profile:
    """OWL's profile on budget: both parts of a layer keep the share 1 - S_l of their units.

    Shares are rounded to whole units, all of them shifted by the one amount that meets the budget.

    Args:
        budget: of the very space of `elastic`.
        elastic: the model, whose order of units is of no account here.
        multiple: M, how many times the layer's mean an outlier is.
        spread: lambda of the paper.
        bounded: see `owl_rates`.

    Raises:
        ToolError: the budget is of another space, or a setting is out of its range.
    """
    _check(budget, elastic)
    layers = range(budget.space.n_layers)
    ratios = [outlier_ratio(list(weights_and_norms(elastic, layer)), multiple) for layer in layers]
    kept = 1.0 - torch.tensor(owl_rates(ratios, budget.sparsity, spread, bounded), dtype=torch.float64)
    scores: dict[Part, Tensor] = {}
    for part in PARTS:
        units = budget.space.units(part)
        middles = (torch.arange(units, dtype=torch.float64) + 0.5) / units
        scores[part] = kept[:, None] - middles  # positive for the units that rounding the share keeps
    return keep_best(budget, scores["attention"], scores["mlp"])


@torch.no_grad()
def weights_and_norms(elastic: ElasticModel, index: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every weight [out, in] of the linear maps of layer `index`, with the norms [in] of its input features.

    The norms are over the calibration text, in the column order of the weight, float32 on its device.
    """
    moments = elastic.moments
    with elastic.store.layer(index) as layer:
        for part in PARTS:
            squares = moments.calibration.input_squares(index, part)
            for name in INPUTS[part]:
                weight = linear(layer, part, name).weight
                yield weight, squares.to(weight.device).sqrt()
            weight = output_projection(layer, part).weight
            squares = moments.calibration.channel_moments(index, part).squares.clamp(min=0).to(weight.device)
            yield weight, squares[moments.channel_order(index, part)].sqrt()


def outlier_ratio(weights_and_norms: Sequence[tuple[Tensor, Tensor]], multiple: float = 5.0) -> float:
    """D of one layer: the percentage of A_ij = ||X_j|| * |W_ij| that exceed `multiple` times their mean.

    Args:
        weights_and_norms: all linear maps of the layer: weights [out, in] and norms [in] of their input features.
        multiple: M.

    Raises:
        ToolError: `multiple` is not positive.
    """
    if not multiple > 0 or not math.isfinite(multiple):
        raise ToolError(f"an outlier is a positive multiple of the mean, not {multiple}")
    total = sum(weight.numel() for weight, _ in weights_and_norms)
    # Made twice, one matrix at a time: all of a large layer in float32 would take several times its own memory.
    mean = sum(_metric(*pair).sum(dtype=torch.float64).item() for pair in weights_and_norms) / total
    outliers = sum(int((_metric(*pair) > multiple * mean).sum()) for pair in weights_and_norms)
    return 100.0 * outliers / total


def owl_rates(ratios: Sequence[float], sparsity: float, spread: float = 0.08, bounded: bool = False) -> list[float]:
    """The sparsity S_l of every layer, with mean `sparsity`, falling linearly with its outlier ratio D_l.

    As released: with d_l = 2 * spread * (D_l - min D) / (max D - min D), S_l = sparsity - (d_l - mean d). The rates
    span 2 * spread, but where few layers stand out they leave [sparsity - spread, sparsity + spread], which the paper
    gives. With `bounded` the deviations from the mean are scaled to end at that interval instead:
    S_l = sparsity - spread * (D_l - mean D) / max |D - mean D|. Equal ratios give equal rates.

    Args:
        ratios: D_l, one a layer, in any unit.
        sparsity: the target, from 0 to 1.
        spread: lambda. Rates below 0 or above 1 are possible where it exceeds what the sparsity leaves.
        bounded: the paper's interval instead of the released code's.

    Raises:
        ToolError: `spread` is negative or not finite.
    """
    if not (math.isfinite(spread) and spread >= 0):
        raise ToolError(f"the spread of the layers' sparsities must be 0 or more, not {spread}")
    outliers = torch.tensor(ratios, dtype=torch.float64)
    deviations = outliers - outliers.mean()
    extent = deviations.abs().max() if bounded else (outliers.max() - outliers.min()) / 2
    if outliers.max() == outliers.min():
        return [sparsity] * len(ratios)
    return (sparsity - spread * deviations / extent).tolist()


def _metric(weight: Tensor, norms: Tensor) -> Tensor:
    return weight.float().abs() * norms


# --- FLAP -----------------------------------------------------------------------------------------------------------


def flap(budget: Budget, elastic: ElasticModel, *, square_attention: bool = True) -> Profile:
    """FLAP's profile on budget: the units whose standardised fluctuation is over one threshold.

    A channel's score is its WIFV, standardised over the channels of its layer and part; a unit's is the mean over its
    channels. In FLAP the units are single heads and single MLP channels. Here a head's score extends to its KV group,
    over the channels of all query heads of the group, and a channel's to the block it is in, in the elastic order.
    Each counts with its parameters when the threshold is set.

    Args:
        budget: of the very space of `elastic`.
        elastic: the model.
        square_attention: score attention channels by the square of their WIFV, as released; the paper does not.

    Raises:
        ToolError: the budget is of another space.
    """
    _check(budget, elastic)
    space = budget.space
    scores: dict[Part, Tensor] = {}
    for part in PARTS:
        rows: list[Tensor] = []
        for layer in range(space.n_layers):
            channels = channel_fluctuations(elastic, layer, part).double().cpu()
            channels = channels.square() if part == "attention" and square_attention else channels
            rows.append(standardised(channels).view(space.units(part), -1).mean(1))
        scores[part] = torch.stack(rows)
    return keep_best(budget, scores["attention"], scores["mlp"])


@torch.no_grad()
def channel_fluctuations(elastic: ElasticModel, index: int, part: Part) -> Tensor:
    """FLAP's WIFV [channels] of the input channels of o_proj or down_proj of layer `index`, in its order, float32."""
    moments = elastic.moments
    order = moments.channel_order(index, part)
    with elastic.store.layer(index) as layer:
        weight = output_projection(layer, part).weight[:, torch.argsort(order)]
    return flap_wifv(weight, moments.calibration.channel_moments(index, part))[order]


def standardised(scores: Tensor) -> Tensor:
    """Float `scores` [n] less their mean, over their unbiased standard deviation.

    All are -inf where that is zero: nothing tells such channels apart, and in the released code they pass no threshold
    (0 / 0 is not a number). It is a dead layer that looks so, and it may well go first.
    """
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else torch.full_like(scores, -math.inf)


# --- whole units ----------------------------------------------------------------------------------------------------


def keep_best(budget: Budget, attention: Tensor, mlp: Tensor) -> Profile:
    """The profile on budget that keeps the units of highest score in the whole model, and at least one in each place.

    FLAP's rule: all units in one order by score, cut where the parameters above are nearest to the target. A KV group
    weighs more than the budget allows it to be off, so the MLP's threshold then gives way until the budget is met.

    Args:
        budget: what to meet.
        attention: scores of KV groups [layers, groups], in any order within a layer.
        mlp: scores of MLP units [layers, blocks], likewise.
    """
    space = budget.space
    ranked: list[tuple[float, int, Part]] = []
    for part, scores in zip(PARTS, (attention, mlp), strict=True):
        for layer, row in enumerate(scores.tolist()):
            ranked += [(score, layer, part) for score in sorted(row, reverse=True)[1:]]  # the best stays anyhow
    ranked.sort(key=lambda unit: unit[0], reverse=True)  # stable: equal units keep their places

    costs = (budget.unit_price(part) for _, _, part in ranked)
    prices = list(accumulate(costs, initial=budget.price(space.smallest())))
    cut = min(range(len(prices)), key=lambda kept: abs(prices[kept] - budget.target_price))
    groups = space.n_layers + sum(part == "attention" for _, _, part in ranked[:cut])
    blocks = 2 * space.n_layers + cut - groups
    blocks = min(budget.blocks(groups), key=lambda total: abs(total - blocks), default=blocks)

    def widths(of: Part, total: int) -> list[int]:
        layers = [layer for _, layer, part in ranked if part == of]
        kept = Counter(layers[: total - space.n_layers])
        return [1 + kept[layer] for layer in range(space.n_layers)]

    # The projection changes nothing but where MLP units cannot make up for the groups: all or none of them are left.
    return budget.project(widths("attention", groups), widths("mlp", blocks)).profile


def _check(budget: Budget, elastic: ElasticModel) -> None:
    if budget.space != elastic.space:
        raise ToolError("the budget is of another model, or of other units: make it from this model's space")
