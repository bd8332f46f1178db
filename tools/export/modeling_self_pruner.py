# Copyright 2026 The Self-Pruner authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Llama, Mistral, Qwen2 and Qwen3 whose layers differ in width.

This file travels inside every exported checkpoint and needs transformers alone (`trust_remote_code=True`). Each decoder
layer is the family's own, built from `config.per_layer_config[i]`, which gives its query heads, key/value heads and MLP
channels; forward, KV cache, attention backends and generation are inherited unchanged.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer


class PrunedConfig:
    """Comes before a family's config class: `per_layer_config` decides the widths, `head_dim` is explicit."""

    def validate_architecture(self) -> None:
        """Allow any number of query heads: with an explicit `head_dim` they need not divide the hidden size."""

    @property
    def block_configs(self) -> list[SimpleNamespace]:
        """The layers as vLLM's own class of layers of unequal MLPs (DeciLM) reads them."""
        heads = self.num_attention_heads // self.num_key_value_heads  # type: ignore[attr-defined]
        attention = SimpleNamespace(no_op=False, n_heads_in_group=heads)
        widths = [self.per_layer_config[index].intermediate_size for index in range(self.num_hidden_layers)]  # type: ignore[attr-defined]
        return [
            SimpleNamespace(attention=attention, ffn=SimpleNamespace(no_op=False, intermediate_size=width))
            for width in widths
        ]

    def __iter__(self) -> Iterator[str]:
        """Leave out what differs from layer to layer: it has no one value, and transformers warns when asked for it."""
        varying = self.per_layer_attributes or ()  # type: ignore[attr-defined]
        return (name for name in self.__dict__ if name not in varying)


class PrunedLayers:
    """Comes before a family's model class and gives every decoder layer the width its config states."""

    layer_class: type[nn.Module]
    _supports_attention_backend = True

    def __init__(self, config: Any) -> None:
        """Build the family's model around layers of unequal width."""
        # The family builds every layer from the one global width, so it is asked for none.
        n_layers, config.num_hidden_layers = config.num_hidden_layers, 0
        super().__init__(config)  # type: ignore[call-arg]
        config.num_hidden_layers = n_layers
        self.get_decoder().layers = nn.ModuleList(self.pruned_layer(config, index) for index in range(n_layers))  # type: ignore[attr-defined]
        self.post_init()  # type: ignore[attr-defined]

    def pruned_layer(self, config: Any, index: int) -> nn.Module:
        """Decoder layer `index`, with the bias compensation's biases where the checkpoint has them."""
        layer: Any = self.layer_class(config.per_layer_config[index], index)
        layer.self_attn.config = config  # one shared object, so that set_attn_implementation reaches every layer
        if getattr(config, "compensation_bias", False):
            for block, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
                dense = getattr(block, name)
                setattr(block, name, nn.Linear(dense.in_features, dense.out_features, bias=True))
        return layer


@strict
class SelfPrunedLlamaConfig(PrunedConfig, LlamaConfig):
    """A Llama config with `per_layer_config`."""


class SelfPrunedLlamaModel(PrunedLayers, LlamaModel):
    """Llama without its head."""

    config_class = SelfPrunedLlamaConfig
    layer_class = LlamaDecoderLayer


class SelfPrunedLlamaForCausalLM(PrunedLayers, LlamaForCausalLM):
    """Llama."""

    config_class = SelfPrunedLlamaConfig
    layer_class = LlamaDecoderLayer


@strict
class SelfPrunedMistralConfig(PrunedConfig, MistralConfig):
    """A Mistral config with `per_layer_config`."""


class SelfPrunedMistralModel(PrunedLayers, MistralModel):
    """Mistral without its head."""

    config_class = SelfPrunedMistralConfig
    layer_class = MistralDecoderLayer


class SelfPrunedMistralForCausalLM(PrunedLayers, MistralForCausalLM):
    """Mistral."""

    config_class = SelfPrunedMistralConfig
    layer_class = MistralDecoderLayer


@strict
class SelfPrunedQwen2Config(PrunedConfig, Qwen2Config):
    """A Qwen2 config with `per_layer_config`."""


class SelfPrunedQwen2Model(PrunedLayers, Qwen2Model):
    """Qwen2 without its head."""

    config_class = SelfPrunedQwen2Config
    layer_class = Qwen2DecoderLayer


class SelfPrunedQwen2ForCausalLM(PrunedLayers, Qwen2ForCausalLM):
    """Qwen2."""

    config_class = SelfPrunedQwen2Config
    layer_class = Qwen2DecoderLayer


@strict
class SelfPrunedQwen3Config(PrunedConfig, Qwen3Config):
    """A Qwen3 config with `per_layer_config`."""


class SelfPrunedQwen3Model(PrunedLayers, Qwen3Model):
    """Qwen3 without its head."""

    config_class = SelfPrunedQwen3Config
    layer_class = Qwen3DecoderLayer


class SelfPrunedQwen3ForCausalLM(PrunedLayers, Qwen3ForCausalLM):
    """Qwen3."""

    config_class = SelfPrunedQwen3Config
    layer_class = Qwen3DecoderLayer
