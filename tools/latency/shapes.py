"""Models of given shapes with random weights: speed depends on shapes alone.

So what pruning a giant would gain can be measured without its weights, and with a few of its layers where memory does
not hold all: time is linear in equal layers, and two depths tell what a layer takes from what the rest does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from self_pruner.tools.models.families import family_of, geometry

NUMBERS = 1_000_003  # a prime, so that no row of a matrix repeats another
Sizes = tuple[int, int]  # KV groups and MLP channels of a layer


@torch.no_grad()
def random_model(
    config: Any, layers: Sequence[Sizes], *, dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> PreTrainedModel:
    """A model of the config's family with these layers, in eval mode.

    Args:
        config: of the dense model, as transformers has it; how many layers it says is of no account.
        layers: KV groups and MLP channels of every layer; at least one.
        dtype: of the weights.
        device: where it is made.
        seed: of the weights.
    """
    model = meta_model(config, layers).to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    some = torch.empty(NUMBERS, dtype=dtype, device=device).uniform_(-0.02, 0.02, generator=generator)
    for parameter in model.parameters():
        fill(parameter, some)
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=model.config).to(device)  # its buffers are no weights
    model.tie_weights()
    return model.eval().requires_grad_(False)


def meta_model(config: Any, layers: Sequence[Sizes], *, bias: bool = False) -> Any:
    """The same without numbers; `bias` gives output projections the biases of bias compensation."""
    import transformers

    shape = geometry(config)
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1] * len(layers)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model: Any = getattr(transformers, family_of(config).architecture)(config)
        for layer, (groups, channels) in zip(model.get_decoder().layers, layers, strict=True):
            resize(layer, groups * shape.group_width, groups * shape.head_dim, channels, bias=bias)
    return model


def fill(parameter: torch.Tensor, some: torch.Tensor) -> None:
    """The same random numbers over and over: as dense as real weights, and made as fast as memory is written."""
    flat = parameter.view(-1)
    whole = len(flat) // len(some) * len(some)
    flat[:whole].view(-1, len(some)).copy_(some)
    flat[whole:].copy_(some[: len(flat) - whole])


def resize(layer: Any, queries: int, keys: int, channels: int, *, bias: bool = False) -> None:
    """Give one layer projections of other widths; `bias` gives the output projections one where they had none."""
    attention, mlp = layer.self_attn, layer.mlp
    for module, name, rows, columns in (
        (attention, "q_proj", queries, None),
        (attention, "k_proj", keys, None),
        (attention, "v_proj", keys, None),
        (attention, "o_proj", None, queries),
        (mlp, "gate_proj", channels, None),
        (mlp, "up_proj", channels, None),
        (mlp, "down_proj", None, channels),
    ):
        old: nn.Linear = getattr(module, name)
        biased = old.bias is not None or (bias and rows is None)
        new = nn.Linear(columns or old.in_features, rows or old.out_features, bias=biased)
        setattr(module, name, new)


def some_of(sizes: Sequence[Sizes], count: int, weight: Callable[[Sizes], float]) -> list[Sizes]:
    """So many layers, evenly apart from the lightest to the heaviest: the same mean, as nearly as that can be."""
    ordered = sorted(sizes, key=lambda one: (weight(one), one))
    return [ordered[round((place + 0.5) * len(ordered) / count - 0.5)] for place in range(count)]
