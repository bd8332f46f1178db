"""Several devices where there is only a CPU: tensors have pretended places, and what a GPU would refuse is refused.

Numbers are computed on the CPU all the same, so results can be compared to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

CROSSING = (Tensor.copy_, Tensor.__setitem__)  # functions whose arguments may be in different places


class ElsewhereError(RuntimeError):
    """Tensors in different places meet in one operation."""


def place_of(tensor: Tensor) -> str:
    return getattr(tensor, "_place", "cpu")


def put(value: Any, place: str) -> Any:
    """The tensors in `value`, said to be in `place`."""
    for tensor in tree_leaves(value):
        if isinstance(tensor, Tensor):
            tensor._place = place
    return value


def put_model(model: nn.Module, first: str, layers: Iterable[str]) -> None:
    """Embedding, norm and head to `first`, every layer to a place of its own."""
    put([*model.parameters(), *model.buffers()], first)
    for layer, place in zip(model.model.layers, layers, strict=True):
        put([*layer.parameters(), *layer.buffers()], place)


class PretendedDevices(TorchFunctionMode):
    """While it lasts, places are what `device` says and what `to` changes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return torch.device(place_of(args[0]))
        if func == Tensor.is_cuda.__get__:
            return place_of(args[0]).startswith("cuda")
        if func is Tensor.cpu:
            return put(args[0].clone(), "cpu")
        asked = kwargs.pop("device", None)
        if func is Tensor.to:
            named = [each for each in args[1:] if isinstance(each, str | torch.device)]
            named += [place_of(each) for each in args[1:] if isinstance(each, Tensor)]
            args = tuple(each for each in args if not isinstance(each, str | torch.device))
            target = str(next(iter(named), asked or place_of(args[0])))
            found = func(*args, **kwargs) if len(args) > 1 or kwargs else args[0]
            if found is args[0] and target != place_of(found):
                found = found.clone()
            return put(found, target)
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        places = {place_of(each) for each in tensors if each.dim() or place_of(each) != "cpu"}
        if func in (Tensor.__getitem__, Tensor.__setitem__) and not isinstance(args[0], tuple):
            places -= {"cpu"} - {place_of(args[0])}  # indices may be on the CPU
        if len(places) > 1 and func not in CROSSING:
            raise ElsewhereError(f"{getattr(func, '__name__', func)}: tensors on {' and '.join(sorted(places))}")
        found = func(*args, **kwargs)
        if func in CROSSING:
            return found
        return tree_map_only(Tensor, lambda each: put(each, str(asked or next(iter(places), "cpu"))), found)


@contextmanager
def pretended_devices() -> Iterator[None]:
    """Pretended places, for gradients too, which autograd gives without asking anybody."""
    real = torch.autograd.grad

    def grad(outputs: Any, inputs: Any, *others: Any, **named: Any) -> Any:
        found = real(outputs, inputs, *others, **named)
        for gradient, of in zip(found, inputs if isinstance(inputs, list | tuple) else [inputs], strict=True):
            put(gradient, place_of(of))
        return found

    with pytest.MonkeyPatch.context() as patch, PretendedDevices():
        patch.setattr(torch.autograd, "grad", grad)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 34, 1 << 34))
        patch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
        yield
