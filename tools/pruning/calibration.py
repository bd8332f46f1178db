"""Calibration: one pass of the dense model over text, layer by layer, that keeps second moments of activations.

All sequences go through layer l before any goes through layer l + 1, so only one hidden state a token is held and
every layer is needed once. For each layer it keeps X^T X and the column sums of the inputs X of `o_proj` and
`down_proj`; importance (Wanda-sp, FLAP), the least-squares refit and the bias all follow from these two. Of what the
other projections read only the squares are kept: with them every weight of a layer has the norm of its input (OWL).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from self_pruner.memory.errors import KeptFileError, MeasurementError, ModelError
from self_pruner.memory.profile import PARTS, Part
from self_pruner.tools.models.tensor_files import TensorFiles, TensorWriter
from self_pruner.tools.pruning.moments import GRAM_BLOCK, ChannelMoments, Features, LateFeatures, Moments, Squares
from self_pruner.tools.pruning.store import (
    LayerStore,
    ResidentLayers,
    brought,
    device_of,
    embed,
    linear,
    output_projection,
)

FORMAT = "self-pruner calibration 2"
KINDS = ("gram", "sums", "squares")  # tensors of a layer and part in a file
DIAGONAL = "diagonal"  # of the Gram matrix, which files of earlier versions have in it only
INPUTS: dict[Part, tuple[str, ...]] = {"attention": ("q_proj", "k_proj", "v_proj"), "mlp": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class Calibration:
    """The moments of every layer, in the channel order of the model that was calibrated."""

    attention: Sequence[Features]  # inputs of o_proj, one a layer
    mlp: Sequence[Features]  # inputs of down_proj, one a layer
    attention_squares: tuple[Tensor, ...]  # of what q, k and v_proj read: [hidden] a layer, float32 on the CPU
    mlp_squares: tuple[Tensor, ...]  # of what gate and up_proj read: the same
    tokens: int
    path: Path | None = None  # of the file that `attention` and `mlp` are read from, each time they are asked for

    def features(self, layer: int, part: Part) -> Features:
        """The moments of one layer and part."""
        return self.attention[layer] if part == "attention" else self.mlp[layer]

    def channels(self, part: Part) -> int:
        """Input channels of the output projections of `part`."""
        kept = self.attention if part == "attention" else self.mlp
        return kept.channels if isinstance(kept, KeptFeatures) else len(kept[0].sums)

    def channel_moments(self, layer: int, part: Part) -> ChannelMoments:
        """The moments of each channel by itself: of a file no Gram matrix is read for them."""
        kept = self.attention if part == "attention" else self.mlp
        return kept.by_channel(layer) if isinstance(kept, KeptFeatures) else kept[layer].by_channel()

    def ordered_features(self, layer: int, part: Part, order: Tensor) -> LateFeatures:
        """The same with the channels in another order, in memory of their own on the device of `order`."""
        kept = self.attention if part == "attention" else self.mlp
        return kept.ordered(layer, order) if isinstance(kept, KeptFeatures) else kept[layer].permuted(order)

    def input_squares(self, layer: int, part: Part) -> Tensor:
        """Sums of squares [hidden] over all tokens of the features that the projections `INPUTS[part]` read."""
        return self.attention_squares[layer] if part == "attention" else self.mlp_squares[layer]

    def save(self, path: Path) -> None:
        """Writes a safetensors file, aside first and then renamed, so a killed run leaves no half-written file."""
        if self.path == path:
            return
        channels: dict[Part, int] = {part: self.channels(part) for part in PARTS}
        with _writer(path, len(self.mlp), self.tokens, channels, len(self.mlp_squares[0])) as writer:
            for part in PARTS:
                for layer in range(len(self.mlp)):
                    _write(writer, layer, part, self.features(layer, part), self.input_squares(layer, part))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """What `save` wrote; Gram matrices stay in the file and are read one at a time, as they are asked for.

        Raises KeptFileError for a file that is missing, damaged, or not a calibration of this format.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise KeptFileError(f"{str(path)!r} is not a calibration file of this version; delete it")
            tokens, layers = int(metadata["tokens"]), int(metadata["layers"])
            files = TensorFiles([path])
            wanted = [f"{part}.{layer}.{kind}" for part in PARTS for layer in range(layers) for kind in KINDS]
            if absent := [name for name in wanted if name not in files.stored]:
                raise KeptFileError(f"calibration file {str(path)!r} is damaged (no {absent[0]}); delete it")
            squares = {part: tuple(files.read(f"{part}.{layer}.squares") for layer in range(layers)) for part in PARTS}
        except FileNotFoundError as error:
            raise KeptFileError(f"there is no calibration file {str(path)!r}") from error
        except (OSError, SafetensorError, KeyError, ValueError, ModelError) as error:
            raise KeptFileError(f"calibration file {str(path)!r} is damaged ({error}); delete it") from error
        attention, mlp = (KeptFeatures(files, part, layers, tokens) for part in PARTS)
        return cls(attention, mlp, squares["attention"], squares["mlp"], tokens, path)


class KeptFeatures(Sequence[Features]):
    """The features of one part of all layers, read from a calibration file when they are asked for."""

    def __init__(self, files: TensorFiles, part: Part, layers: int, tokens: int) -> None:
        self._files, self._part, self._layers, self._tokens = files, part, range(layers), tokens

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: Any) -> Any:
        """The features of one layer; a list of those of some."""
        if isinstance(index, slice):
            return [self[layer] for layer in self._layers[index]]
        name = f"{self._part}.{self._layers[index]}"
        return Features(self._files.read(f"{name}.gram"), self._files.read(f"{name}.sums"), self._tokens)

    @property
    def channels(self) -> int:
        """Channels of every layer."""
        return self._files.stored[f"{self._part}.0.sums"].shape[0]

    def by_channel(self, layer: int) -> ChannelMoments:
        """The moments of each channel of a layer by itself.

        In a file of an earlier version the diagonal is in the Gram matrix only, which is read some rows at a time.
        """
        name = f"{self._part}.{layer}"
        if f"{name}.{DIAGONAL}" in self._files.stored:
            squares = self._files.read(f"{name}.{DIAGONAL}")
        else:
            squares = torch.cat([rows.diagonal(start) for start, rows in self._rows(layer)])
        return ChannelMoments(squares, self._files.read(f"{name}.sums"), self._tokens)

    def ordered(self, layer: int, order: Tensor) -> LateFeatures:
        """Those of a layer with the channels in another order, on its device; memory holds one Gram matrix."""
        sums = self._files.read(f"{self._part}.{layer}.sums").to(order.device)
        return LateFeatures(partial(self._ordered_gram, layer, order), sums[order], self._tokens)

    def _ordered_gram(self, layer: int, order: Tensor) -> Tensor:
        gram = torch.empty(len(order), len(order), device=order.device)
        place = order.argsort()  # where each row of the file goes
        for start, rows in self._rows(layer):
            gram[place[start : start + GRAM_BLOCK]] = rows.to(order.device).index_select(1, order)
        return gram

    def _rows(self, layer: int) -> Iterator[tuple[int, Tensor]]:
        """The Gram matrix of a layer in blocks of rows, each with the number of its first."""
        for start in range(0, self.channels, GRAM_BLOCK):
            stop = min(start + GRAM_BLOCK, self.channels)
            yield start, self._files.read(f"{self._part}.{layer}.gram", range(start, stop))


def _writer(path: Path, layers: int, tokens: int, channels: Mapping[Part, int], hidden: int) -> TensorWriter:
    """A calibration file to be filled."""
    shapes = {}
    for part in PARTS:
        n = channels[part]
        for layer in range(layers):
            for kind, shape in zip((*KINDS, DIAGONAL), ((n, n), (n,), (hidden,), (n,)), strict=True):
                shapes[f"{part}.{layer}.{kind}"] = (torch.float32, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    return TensorWriter(path, shapes, {"format": FORMAT, "layers": str(layers), "tokens": str(tokens)})


def _write(writer: TensorWriter, layer: int, part: Part, features: Features, squares: Tensor) -> None:
    tensors = features.gram, features.sums, squares, features.gram.diagonal()
    for kind, tensor in zip((*KINDS, DIAGONAL), tensors, strict=True):
        writer.write(f"{part}.{layer}.{kind}", tensor)


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
    store: LayerStore | None = None,
    path: Path | None = None,
    states: str | None = None,
) -> Calibration:
    """Runs the dense model over `input_ids` [sequences, length] and keeps the moments of every layer.

    Args:
        model: The dense model, not yet reordered; it is left as it was.
        input_ids: Rows of tokens without padding.
        batch: Sequences in one forward pass.
        progress: Called as progress(done, total), in batches times layers.
        store: Where the layers of `model` come from; None for the model's own, in memory.
        path: A file that takes the moments of a layer as soon as they are known; None keeps all of them in memory.
        states: Device that holds hidden states between layers; None for the one that computed them.

    Raises:
        MeasurementError: The text is empty or an activation is not finite.
        KeptFileError: The file cannot be written.
    """
    if input_ids.ndim != 2 or input_ids.numel() == 0:
        raise MeasurementError(
            f"calibration needs rows of tokens [sequences, length], got shape {tuple(input_ids.shape)}"
        )
    store = store or ResidentLayers(model)
    layers = _moments(model, input_ids, store, batch, progress, states)
    if path is not None:
        channels: dict[Part, int] = {
            part: output_projection(model.get_decoder().layers[0], part).in_features for part in PARTS
        }
        try:
            with _writer(path, len(store), input_ids.numel(), channels, model.config.hidden_size) as writer:
                for index, found in enumerate(layers):
                    for part, (features, squares) in found.items():
                        _write(writer, index, part, features, squares)
        except OSError as error:
            raise KeptFileError(f"the Gram matrices cannot be written to {str(path)!r}: {error.strerror}") from error
        return Calibration.load(path)
    kept = list(layers)
    features_of = {part: tuple(found[part][0] for found in kept) for part in PARTS}
    squares_of = {part: tuple(found[part][1] for found in kept) for part in PARTS}
    return Calibration(
        features_of["attention"],
        features_of["mlp"],
        squares_of["attention"],
        squares_of["mlp"],
        input_ids.numel(),
    )


@torch.no_grad()
def _moments(
    model: PreTrainedModel,
    input_ids: Tensor,
    store: LayerStore,
    batch: int,
    progress: Callable[[int, int], None] | None,
    states: str | None,
) -> Iterator[dict[Part, tuple[Features, Tensor]]]:
    """By part, the moments of one layer after the other, and the squares [hidden] of what its block reads."""
    embedded = [embed(model, rows) for rows in input_ids.to(model.device).split(batch)]
    hidden = [each.hidden.to(states) for each in embedded]
    _, position_embeddings, masks = embedded[0]  # the same for all rows, for they are equally long
    del embedded
    total = len(store) * len(hidden)
    for index in range(len(store)):
        with store.layer(index) as layer:
            device = device_of(layer)
            moments = {part: Moments(output_projection(layer, part).in_features, device) for part in PARTS}
            squares = {part: Squares(hidden[0].shape[-1], device) for part in PARTS}
            hooks = [output_projection(layer, part).register_forward_pre_hook(moments[part]) for part in PARTS]
            # All projections of INPUTS[part] read the same features, so the first speaks for them.
            hooks += [linear(layer, part, INPUTS[part][0]).register_forward_pre_hook(squares[part]) for part in PARTS]
            try:
                for position, state in enumerate(hidden):
                    hidden[position] = layer(
                        state.to(device),
                        attention_mask=brought(masks[index], device),
                        position_embeddings=brought(position_embeddings, device),
                    ).to(states)
                    if progress is not None:
                        progress(index * len(hidden) + position + 1, total)
            finally:
                for hook in hooks:
                    hook.remove()
        found: dict[Part, tuple[Features, Tensor]] = {}
        for part in PARTS:
            features = moments.pop(part).features()
            if not torch.isfinite(features.gram.diagonal()).all():  # which bounds all others
                raise MeasurementError(f"the dense model gives non-finite activations in the {part} of layer {index}")
            found[part] = features, squares[part].sums.float().cpu()
        yield found
