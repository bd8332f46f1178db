"""How pruning studies commonly simulate a pruned model: at full size, with zeros where channels were removed.

The benchmark of the population walk sets it against really smaller matrices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from self_pruner.memory.profile import Part
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import OUTPUTS, branch, output_projection


class MaskedModel:
    """The elastic model at full size: removed channels are computed and then meet zeros in the output projection."""

    def __init__(self, elastic: ElasticModel) -> None:
        """Everything but the blocks is the elastic model's own."""
        self._elastic = elastic
        self._masked: dict[Part, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        """Whatever is not said here, the elastic model says."""
        return getattr(self._elastic, name)

    def _weights(self, layer: nn.Module, index: int, part: Part, width: int) -> dict[str, Tensor]:
        """Full-size overrides, written over the same memory every time."""
        name = OUTPUTS[part]
        kept = self._elastic.block_weights(index, part, width)
        if not kept:
            return {}
        masked = self._masked.setdefault(part, torch.empty_like(output_projection(layer, part).weight))
        channels = kept[f"{name}.weight"].shape[1]
        masked[:, :channels].copy_(kept[f"{name}.weight"])
        masked[:, channels:].zero_()
        overrides = {f"{name}.weight": masked}
        if f"{name}.bias" in kept:
            overrides[f"{name}.bias"] = kept[f"{name}.bias"]
        return overrides

    def attention_block(
        self,
        layer: nn.Module,
        index: int,
        width: int,
        hidden: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """As `ElasticModel.attention_block`, with every head computed."""
        overrides = self._weights(layer, index, "attention", width)
        return hidden + branch(layer, "attention", overrides, hidden, position_embeddings, attention_mask)

    def mlp_block(self, layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        """As `ElasticModel.mlp_block`, with every channel computed."""
        return hidden + branch(layer, "mlp", self._weights(layer, index, "mlp", width), hidden)
