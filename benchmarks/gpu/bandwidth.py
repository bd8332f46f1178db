"""Bandwidth: what moving weights costs, which is what streaming a model through one device is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.device import Device
from benchmarks.gpu.profiles import Shapes, space_of_config
from benchmarks.gpu.record import Deadline, Record, figure, rounded

REPEATS = 5


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """Copy one dense layer of the giant between host and device, within the device, and beside a matrix product."""
    size = layer_bytes(shapes)
    record.set(layer_bytes=size)
    on_device = torch.empty(size, dtype=torch.uint8, device=device.torch)
    pageable = torch.ones(size, dtype=torch.uint8)
    pinned = pageable.pin_memory() if device.is_cuda else pageable.clone()
    other = torch.empty_like(on_device)
    ways: list[tuple[str, int, Callable[[], object]]] = [
        ("host to device, pinned", size, lambda: on_device.copy_(pinned, non_blocking=True)),
        ("host to device, pageable", size, lambda: on_device.copy_(pageable)),
        ("device to host, pinned", size, lambda: pinned.copy_(on_device, non_blocking=True)),
        ("within the device, read and written", 2 * size, lambda: other.copy_(on_device)),
    ]
    for name, moved, action in ways:
        times = device.repeat(action, REPEATS)
        took = figure(times)
        record.row(copy=name, gigabytes_per_second=rounded(moved / took["median"] / 1e9), bytes=moved, seconds=took)
    if deadline.left() > 2:
        _beside_a_product(record, device, on_device, pinned, shapes.toy)


def layer_bytes(shapes: Shapes) -> int:
    """Bytes of one dense layer of the giant in bfloat16."""
    space = space_of_config(shapes.giant, 128)
    matrices = space.n_groups * space.group_params + space.n_blocks * space.block_params
    return 2 * (matrices + 2 * int(shapes.giant.hidden_size))


def _beside_a_product(record: Record, device: Device, on_device: torch.Tensor, pinned: torch.Tensor, toy: bool) -> None:
    """Does a copy hide behind a product that takes about as long?"""
    side = 64 if toy else 8192
    dtype = torch.float32 if toy else torch.bfloat16
    left, right = (torch.randn(side, side, device=device.torch).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    stream = torch.cuda.Stream() if device.is_cuda else None

    def copy() -> None:
        on_device.copy_(pinned, non_blocking=True)

    def product(times: int) -> None:
        for _ in range(times):
            torch.mm(left, right, out=out)

    alone = min(device.repeat(copy, REPEATS))
    once = min(device.repeat(lambda: product(1), REPEATS))
    count = max(1, round(alone / once))

    def both() -> None:
        if stream is None:
            copy()
        else:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                copy()
        product(count)

    products = figure(device.repeat(lambda: product(count), REPEATS))
    together = figure(device.repeat(both, REPEATS))
    record.row(
        copy="a layer while a product runs",
        copy_seconds=rounded(alone),
        product_seconds=products,
        together_seconds=together,
        hidden=rounded(hidden(alone, products["median"], together["median"]), 3),
    )


def hidden(copy: float, product: float, together: float) -> float:
    """Share of the shorter of two that the other hid: 1 where both take as long as the longer alone, 0 as their sum."""
    return (copy + product - together) / min(copy, product)
