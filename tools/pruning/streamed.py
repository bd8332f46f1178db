"""Layers that are read from a checkpoint's safetensors each time they are asked for, so that memory holds two of them.

The model's decoder layers are on the meta device: shapes without numbers. While a layer is asked for, its parameters
stand in its own modules, in the order of units that the elastic model gave it; afterwards they are gone. A thread reads
the next layer meanwhile, in the direction of the walk and round its end. A GPU gets them through pinned memory on
a stream of its own. A layer that is called asks for itself, so the whole model runs too, as a brain does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.tensor_files import TensorFiles
from self_pruner.tools.pruning.store import FilledLayers

Reorder = Callable[[nn.Module], None]


class StreamedLayers(FilledLayers):
    """A `LayerStore` whose layers come from files; `with` closes its reading thread, as `close` does."""

    def __init__(self, model: PreTrainedModel, files: TensorFiles) -> None:
        """Stream the decoder layers of `model`, which are on the meta device.

        Args:
            model: a causal LM whose embeddings, norm and head are there, and whose layers have no numbers; a layer in
                use is where they are, in their number type.
            files: its checkpoint.
        """
        super().__init__(model.get_decoder().layers)
        self._files = files
        self._device, self._dtype = model.device, model.dtype
        self._stream = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None
        self._reorder: dict[int, Reorder] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="layers")
        self._ahead: tuple[int, Future[dict[str, Tensor]]] | None = None
        self._last = 0  # the layer that was taken last
        self.layers_read = self.bytes_read = 0
        cast(Any, model).streamed_layers = self  # for a brain, which has several pieces of a prompt for each layer

    def __enter__(self) -> StreamedLayers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def passes(self) -> float:
        """How many times a layer was read, on average."""
        return self.layers_read / len(self)

    def close(self) -> None:
        """End the reading thread."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def reorder(self, index: int, permute: Reorder) -> None:
        """Bring layer `index` into another order each time it is read; `permute` changes it in place."""
        if index in self._reorder:
            raise ModelError(f"layer {index} is reordered already")
        self._reorder[index] = permute

    def _fill(self, index: int) -> None:
        self._put(index, self._taken(index))
        if index in self._reorder:
            self._reorder[index](self._layers[index])

    def _drop(self, index: int) -> None:
        self._put(index, self._empty[index])

    def _taken(self, index: int) -> dict[str, Tensor]:
        """The tensors of layer `index`, and the next layer on its way."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == index:
            tensors = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].cancel()
            tensors = self._reader.submit(self._read, index).result()
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            for tensor in tensors.values():
                tensor.record_stream(torch.cuda.current_stream(self._device))
        self.layers_read += 1
        if len(self) > 1:
            backwards = index == (self._last - 1) % len(self)
            following = (index - 1 if backwards else index + 1) % len(self)
            self._last = index
            self._ahead = (following, self._reader.submit(self._read, following))
        return tensors

    def _read(self, index: int) -> dict[str, Tensor]:
        """The parameters of one layer, by their names in it."""
        tensors = {}
        for name, empty in self._layers[index].named_parameters():
            tensor = self._files.read(f"model.layers.{index}.{name}")
            if tensor.shape != empty.shape:
                raise ModelError(
                    f"tensor {name!r} of layer {index} has shape {list(tensor.shape)}, not {list(empty.shape)}"
                )
            self.bytes_read += tensor.nbytes
            if self._stream is None:
                tensors[name] = tensor.to(self._device, self._dtype)
                continue
            pinned = tensor.to(self._dtype).pin_memory()
            with torch.cuda.stream(self._stream):
                tensors[name] = pinned.to(self._device, non_blocking=True)
        return tensors

    def _put(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Make `tensors` the parameters of layer `index`."""
        layer = self._layers[index]
        with torch.inference_mode(False):  # a brain's, whose tensors nobody else may use
            for name, tensor in tensors.items():
                owner, _, leaf = name.rpartition(".")
                setattr(layer.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
