"""The order of a model's units: its weights permuted by importance once, and its calibration read in that order.

KV groups and MLP channels change places, and the dense function does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from self_pruner.memory.profile import PARTS, Part
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.pruning.importance import Orders
from self_pruner.tools.pruning.moments import LateFeatures
from self_pruner.tools.pruning.store import linear, output_projection


@dataclass(frozen=True, slots=True)
class OrderedMoments:
    """The moments of a calibration in the order of a reordered model's channels."""

    calibration: Calibration
    orders: Orders
    head_dim: int
    heads_per_group: int

    def channel_order(self, index: int, part: Part) -> Tensor:
        """Permutation [channels] of the input channels of o_proj or down_proj of layer `index`, int64."""
        if part == "mlp":
            return self.orders.mlp[index]
        return _spread(self.orders.attention[index], self.heads_per_group * self.head_dim)

    def features(self, index: int, part: Part) -> LateFeatures:
        """The moments of one part of layer `index`, in memory of their own."""
        return self.calibration.ordered_features(index, part, self.channel_order(index, part))

    @torch.no_grad()
    def permute(self, layer: nn.Module, index: int) -> None:
        """Bring the units of layer `index` into their order, in place."""
        keys = _spread(self.orders.attention[index], self.head_dim)
        for part in PARTS:
            channels = self.channel_order(index, part)
            rows = {"gate_proj": channels, "up_proj": channels}
            if part == "attention":
                rows = {"q_proj": channels, "k_proj": keys, "v_proj": keys}
            for name, order in rows.items():
                projection = linear(layer, part, name)
                projection.weight.copy_(projection.weight[order])
                if projection.bias is not None:
                    projection.bias.copy_(projection.bias[order])
            weight = output_projection(layer, part).weight
            weight.copy_(weight[:, channels])


def _spread(order: Tensor, size: int) -> Tensor:
    """The permutation of rows that permutes groups of `size` neighbouring rows by `order`."""
    return (order[:, None] * size + torch.arange(size, device=order.device)).flatten()
