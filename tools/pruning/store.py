"""The decoder as a walk over it sees it: the embedding, a store of layers, and the causal mask each layer wants.

Calibration and evaluation go layer by layer and take each layer from a `LayerStore`. Here the layers are resident in
memory, on one device or on several; streamed.py reads them from safetensors instead. Nothing above knows more of it
than that a layer computes on a device of its own (`device_of`), to which hidden states come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import RLock
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import Part
from self_pruner.tools.models.families import sliding_window

BLOCKS: dict[Part, str] = {"attention": "self_attn", "mlp": "mlp"}
OUTPUTS: dict[Part, str] = {"attention": "o_proj", "mlp": "down_proj"}


def device_of(layer: nn.Module) -> torch.device:
    """Where a decoder layer computes."""
    return next(layer.parameters()).device


def block(layer: nn.Module, part: Part) -> nn.Module:
    """The attention or the MLP of a decoder layer."""
    return layer.get_submodule(BLOCKS[part])


def linear(layer: nn.Module, part: Part, name: str) -> nn.Linear:
    """One projection of a decoder layer, by its name in the block: `q_proj`, `up_proj`, ..."""
    module = block(layer, part).get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def output_projection(layer: nn.Module, part: Part) -> nn.Linear:
    """The linear map whose input channels are the ones a pruned `part` loses: o_proj or down_proj."""
    return linear(layer, part, OUTPUTS[part])


def branch(
    layer: nn.Module,
    part: Part,
    overrides: dict[str, Tensor],
    hidden: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """What `part` of `layer` adds to `hidden` [batch, length, hidden] with some of its parameters replaced.

    Attention wants the position embeddings of the embedding. Everything comes to the layer's device.
    """
    module, device = block(layer, part), device_of(layer)
    hidden = hidden.to(device)
    if part == "mlp":
        normed = layer.get_submodule("post_attention_layernorm")(hidden)
        return functional_call(module, overrides, (normed,), tie_weights=False)
    inputs = {
        "hidden_states": layer.get_submodule("input_layernorm")(hidden),
        "position_embeddings": brought(position_embeddings, device),
        "attention_mask": brought(attention_mask, device),
    }
    return functional_call(module, overrides, (), inputs, tie_weights=False)[0]


class LayerStore(Protocol):
    """The decoder layers of one model, in order."""

    def __len__(self) -> int:
        """Number of decoder layers."""

    def layer(self, index: int) -> AbstractContextManager[nn.Module]:
        """Layer `index`, usable inside the `with` block."""

    def reorder(self, index: int, permute: Callable[[nn.Module], None]) -> None:
        """Bring layer `index` into another order for good; `permute` changes the layer it is given in place."""


class ResidentLayers:
    """All layers stay in memory: the model's own modules, no copies."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers: list[nn.Module] = list(model.get_decoder().layers)

    def __len__(self) -> int:
        return len(self._layers)

    @contextmanager
    def layer(self, index: int) -> Iterator[nn.Module]:
        """Layer `index` of the model."""
        yield self._layers[index]

    def reorder(self, index: int, permute: Callable[[nn.Module], None]) -> None:
        """Permute the model's own layer, now."""
        permute(self._layers[index])


class SpreadLayers(ResidentLayers):
    """Layers that stay on several devices; the model runs too, as a brain does."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        decoder = model.get_decoder()
        bring_inputs([*decoder.layers, decoder.norm])


class FilledLayers:
    """Layers that have numbers only while they are in use. One that is called uses itself, so the whole model runs."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers: list[nn.Module] = list(layers)
        self._empty = [dict(layer.named_parameters()) for layer in self._layers]
        self._used = [0] * len(self._layers)  # uses of each layer that have not ended
        self._called: list[ExitStack] = []
        self._lock = RLock()
        for index, layer in enumerate(self._layers):
            layer.register_forward_pre_hook(partial(self._begin, index))
            layer.register_forward_hook(self._end, always_call=True)

    def __len__(self) -> int:
        return len(self._layers)

    @contextmanager
    def layer(self, index: int) -> Iterator[nn.Module]:
        """Layer `index` of the model, with numbers for as long as the block lasts; another thread waits for its end."""
        with self._lock:
            if not self._used[index]:
                self._fill(index)
            self._used[index] += 1
            try:
                yield self._layers[index]
            finally:
                self._used[index] -= 1
                if not self._used[index]:
                    self._drop(index)

    def _fill(self, index: int) -> None:
        """Give layer `index` its numbers."""
        raise NotImplementedError

    def _drop(self, index: int) -> None:
        """Take them away again, back to what `_empty` has."""
        raise NotImplementedError

    def _begin(self, index: int, *_: object) -> None:
        called = ExitStack()
        called.enter_context(self.layer(index))
        self._called.append(called)

    def _end(self, *_: object) -> None:
        if self._called:  # none where the layer could not be read
            self._called.pop().close()


def bring_inputs(modules: Iterable[nn.Module]) -> None:
    """Let what each of these modules is called with come to its device first."""
    for module in modules:
        module.register_forward_pre_hook(_bring, with_kwargs=True)


def _bring(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    device = device_of(module)
    return brought(args, device), {name: brought(value, device) for name, value in kwargs.items()}


def brought(value: Any, device: torch.device) -> Any:
    """A tensor, or a tuple of them, on `device`; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(brought(each, device) for each in value)
    return value.to(device) if isinstance(value, Tensor) else value


class Embedded(NamedTuple):
    """What goes into the first decoder layer, and what every layer needs beside it."""

    hidden: Tensor  # [batch, length, hidden]
    position_embeddings: tuple[Tensor, Tensor]  # cosine and sine, [1, length, head_dim] each
    masks: tuple[Tensor | None, ...]  # one a layer, boolean [1, 1, length, length]; None: plain causal


def embed(model: PreTrainedModel, input_ids: Tensor) -> Embedded:
    """Embeds `input_ids` [batch, length]: full rows without padding, positions from 0.

    Raises ModelError unless the model runs `sdpa`, which is causal by itself when given no mask.
    """
    implementation = model.config._attn_implementation
    if implementation != "sdpa":
        raise ModelError(
            f"attention implementation {implementation!r} is not supported here; load the model with 'sdpa'"
        )
    decoder = model.get_decoder()
    hidden = decoder.embed_tokens(input_ids)
    length = input_ids.shape[1]
    position_ids = torch.arange(length, device=hidden.device).unsqueeze(0)
    return Embedded(hidden, decoder.rotary_emb(hidden, position_ids), _masks(model, length, hidden.device))


def _masks(model: PreTrainedModel, length: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """One mask a layer; layers with the same sliding window share a tensor."""
    config = model.config
    n_layers: int = config.num_hidden_layers
    window = sliding_window(config)
    if window is None or length <= window:
        return (None,) * n_layers
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    sliding = ((distance >= 0) & (distance < window))[None, None]
    # Qwen names the kind of every layer; Mistral has one window for all.
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * n_layers
    return tuple(sliding if kind == "sliding_attention" else None for kind in kinds)
