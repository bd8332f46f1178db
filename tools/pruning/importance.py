"""Importance: the within-layer score that orders the units of one layer, most important first.

- wanda-sp: sum_i |W_ij| * ||X_j||, the structured form of Wanda (Sun et al., arXiv 2306.11695) used in FLAP.
- flap: WIFV, the variance of X_j times ||W_:j||^2 (An et al., FLAP, arXiv 2312.11983).
- magnitude: the sum of |w| over all weights of the unit.

The first two score the input channels of the output projection (`o_proj`, `down_proj`); a KV group scores the sum of
its channels. MLP channels are sorted first and cut into blocks afterwards, so that a block
holds channels of like importance.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from self_pruner.memory.profile import PARTS, Part
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.pruning.moments import Features
from self_pruner.tools.pruning.store import LayerStore, linear, output_projection

Importance = Literal["wanda-sp", "flap", "magnitude"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)


class Orders(NamedTuple):
    """Permutations by descending importance, one a layer: entry p is the old index of what comes to place p."""

    attention: list[Tensor]  # of KV groups, int64 [groups] each
    mlp: list[Tensor]  # of channels, int64 [intermediate] each


def wanda_sp(weight: Tensor, gram: Tensor) -> Tensor:
    """Scores [in] of the input channels of `weight` [out, in], given `gram` = X^T X [in, in]."""
    return weight.float().abs().sum(0) * gram.diagonal().clamp(min=0).sqrt().to(weight.device)


def flap_wifv(weight: Tensor, gram: Tensor, sums: Tensor, n: int) -> Tensor:
    """Scores [in] of the input channels of `weight` [out, in], given `gram`, the column `sums` of X and its `n` rows.

    The variance is the unbiased one; with a single row it is taken as zero.
    """
    # In float64: the variance is a small difference of large numbers when the mean is large.
    centred = gram.diagonal().double() - sums.double().square() / n
    variance = (centred.clamp(min=0) / max(n - 1, 1)).float().to(weight.device)
    return variance * weight.float().square().sum(0)


def magnitude(*matrices: Tensor) -> Tensor:
    """Scores [n]: the sum of |w| over all weights of unit j, which are row j of every matrix [n, ...]."""
    return torch.stack([matrix.float().abs().flatten(1).sum(1) for matrix in matrices]).sum(0)


def group_scores(channel_scores: Tensor, n_groups: int) -> Tensor:
    """Scores [n_groups] of groups of equally many neighbouring channels: the sum of `channel_scores` [channels]."""
    return channel_scores.view(n_groups, -1).sum(1)


def unit_order(scores: Tensor) -> Tensor:
    """Permutation (int64) that sorts `scores` in descending order; equal scores keep their places."""
    return torch.argsort(scores, descending=True, stable=True)


def part_scores(layer: nn.Module, part: Part, features: Features, n_groups: int, method: Importance) -> Tensor:
    """Scores of one layer: of the KV groups [n_groups] for attention, of the channels [intermediate] for the MLP."""
    weight = output_projection(layer, part).weight
    if method == "magnitude":
        if part == "mlp":
            return magnitude(*(linear(layer, part, name).weight for name in ("gate_proj", "up_proj")), weight.T)
        inputs = (linear(layer, part, name).weight for name in ("q_proj", "k_proj", "v_proj"))
        return magnitude(*(matrix.reshape(n_groups, -1) for matrix in (*inputs, weight.T)))
    if method == "flap":
        channels = flap_wifv(weight, features.gram, features.sums, features.tokens)
    else:
        channels = wanda_sp(weight, features.gram)
    return group_scores(channels, n_groups) if part == "attention" else channels


@torch.no_grad()
def importance_orders(store: LayerStore, calibration: Calibration, n_groups: int, method: Importance) -> Orders:
    """Orders of the KV groups and MLP channels of every layer of a model that is not yet reordered."""
    by_part: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
    for index in range(len(store)):
        with store.layer(index) as layer:
            for part, orders in by_part.items():
                scores = part_scores(layer, part, calibration.features(index, part), n_groups, method)
                orders.append(unit_order(scores))
    return Orders(by_part["attention"], by_part["mlp"])
