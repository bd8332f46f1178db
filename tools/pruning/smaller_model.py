"""A candidate as a model of its own, with really smaller tensors: to run, or to be written.

To run, it is the dense model's class whose blocks are filled with smaller tensors; all else (embedding, norms, head) is
shared with the dense model. Stock attention modules take their head counts from shapes, so it runs like any other.
Where the dense layers are streamed, so are its own: a layer that is called has numbers for that long, and whoever has
several batches takes all of them through one layer after the other (`last_states`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.pruning.compensation import Compensator
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import (
    BLOCKS,
    OUTPUTS,
    FilledLayers,
    ResidentLayers,
    SpreadLayers,
    bring_inputs,
    brought,
    device_of,
    embed,
    output_projection,
)
from self_pruner.tools.pruning.streamed import StreamedLayers

LAYERS = "model.layers."  # what the names of all layers' tensors begin with


@torch.no_grad()
def smaller_model(elastic: ElasticModel, profile: Profile) -> PreTrainedModel:
    """A model of the same class whose blocks really have the widths of `profile`.

    Output projections get contiguous memory of their own; everything else is a prefix of the dense weights, which is
    contiguous as it is, or shared with them whole. The result is for running only: its config still has the dense
    sizes, so it cannot be saved.

    Raises:
        ModelError: the profile is not one of this model.
    """
    dense = elastic.model
    with torch.device("meta"):
        smaller: PreTrainedModel = type(dense)(dense.config).eval()
    decoder, dense_decoder = smaller.get_decoder(), dense.get_decoder()
    for name in ("embed_tokens", "norm", "rotary_emb"):
        setattr(decoder, name, getattr(dense_decoder, name))
    smaller.set_output_embeddings(dense.get_output_embeddings())
    if isinstance(elastic.store, StreamedLayers):
        elastic.check(profile)
        cast(Any, smaller).smaller_layers = SmallerLayers(elastic, profile, decoder.layers)
        return smaller
    for index in range(elastic.space.n_layers):
        _fill(decoder.layers[index], elastic, profile, index)
    if isinstance(elastic.store, SpreadLayers):
        bring_inputs(decoder.layers)  # the norm is the dense model's own, which does so already
    return smaller


def _fill(empty: nn.Module, elastic: ElasticModel, profile: Profile, index: int) -> None:
    """Give a layer of a smaller model its numbers."""
    with elastic.store.layer(index) as layer:
        for name, parameter in layer.named_parameters():
            put(empty, name, parameter)
        for part in PARTS:
            for name, tensor in elastic.block_weights(index, part, profile.widths(part)[index]).items():
                put(empty, f"{BLOCKS[part]}.{name}", tensor.contiguous())


class SmallerLayers(FilledLayers):
    """The layers of a smaller model whose dense ones are streamed: each is made when it is asked for, or called."""

    def __init__(self, elastic: ElasticModel, profile: Profile, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self._elastic, self._profile = elastic, profile

    def one_pass(self) -> AbstractContextManager[None]:
        """While all layers are asked for once: what that remembers is not dropped for what comes later."""
        return self._elastic.compensator.one_pass()

    @torch.no_grad()
    def _fill(self, index: int) -> None:
        _fill(self._layers[index], self._elastic, self._profile, index)

    def _drop(self, index: int) -> None:
        layer = self._layers[index]
        for name, _ in list(layer.named_parameters()):
            put(layer, name, self._empty[index].get(name))


@torch.no_grad()
def last_states(model: PreTrainedModel, layers: SmallerLayers, batches: Sequence[Tensor]) -> list[Tensor]:
    """The normed states [batch, length, hidden] that the head reads, of several batches of tokens [batch, length].

    All batches pass a layer before any passes the next, so that each is made once.
    """
    embedded = [embed(model, batch) for batch in batches]
    states = [each.hidden for each in embedded]
    with layers.one_pass():
        for index in range(len(layers)):
            with layers.layer(index) as layer:
                for number, (_, positions, masks) in enumerate(embedded):
                    device = device_of(layer)
                    states[number] = layer(
                        states[number].to(device),
                        attention_mask=brought(masks[index], device),
                        position_embeddings=brought(positions, device),
                    )
    return [model.get_decoder().norm(state) for state in states]


def put(layer: nn.Module, name: str, tensor: Tensor | None) -> None:
    """Set one parameter of a decoder layer, whatever the size of the one it had; None takes it away."""
    owner, _, leaf = name.rpartition(".")
    module = layer.get_submodule(owner)
    setattr(module, leaf, None if tensor is None else nn.Parameter(tensor, requires_grad=False))
    if isinstance(module, nn.Linear) and leaf == "weight" and tensor is not None:
        module.out_features, module.in_features = tensor.shape


@torch.no_grad()
def smaller_tensors(elastic: ElasticModel, profile: Profile) -> Iterator[tuple[str, Tensor]]:
    """The weights at `profile` by name, one at a time; each layer is asked for once.

    Names and their order are those of the Hugging Face model. A head tied to the embedding is left out, as Hugging Face
    does. With bias compensation every output projection has a bias, zero where nothing was removed, so that all layers
    are of one kind. Most tensors are views of the model's own, and whoever keeps one keeps all of its layer.
    """
    elastic.check(profile)
    model = elastic.model
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    done: set[str] = set()
    added: dict[str, Tensor] = {}  # what the dense model has not comes last
    for name, tensor in model.state_dict().items():
        if name.startswith(LAYERS):
            index = name.removeprefix(LAYERS).partition(".")[0]
            if index not in done:  # the first tensor of a layer stands for all of them
                done.add(index)
                yield from _layer_tensors(elastic, profile, int(index), added)
        elif not (tied and name == "lm_head.weight"):
            yield name, tensor.detach()
    yield from added.items()


def _layer_tensors(
    elastic: ElasticModel, profile: Profile, index: int, added: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one layer; biases that it has not in the dense model go to `added`."""
    with elastic.store.layer(index) as layer:
        tensors = dict(layer.state_dict())
        for part in PARTS:
            weight = output_projection(layer, part).weight
            made = dict(elastic.block_weights(index, part, profile.widths(part)[index]))
            bias = f"{OUTPUTS[part]}.bias"
            if elastic.compensation == "bias" and f"{BLOCKS[part]}.{bias}" not in tensors:
                given = made.pop(bias, None)
                given = weight.new_zeros(len(weight)) if given is None else given
                added[f"{LAYERS}{index}.{BLOCKS[part]}.{bias}"] = given
            tensors |= {f"{BLOCKS[part]}.{key}": tensor for key, tensor in made.items()}
        for name, tensor in tensors.items():
            yield f"{LAYERS}{index}.{name}", tensor.detach()


def smaller_outline(elastic: ElasticModel, profile: Profile) -> dict[str, Tensor]:
    """The `smaller_tensors` on the meta device: names, shapes and types, for which no layer is read."""
    outline = copy.copy(elastic)
    outline.compensator = Compensator("none", 0)  # what is removed decides the shapes, not what makes up for it
    outline.store = ResidentLayers(elastic.model)  # of a streamed model these are on the meta device already
    return {name: tensor.to("meta") for name, tensor in smaller_tensors(outline, profile)}
