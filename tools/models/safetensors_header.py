"""What a safetensors file declares, read without its weights and held against the size of the file.

The library's own reader says only that something is wrong; here a person is told which tensor, and whether the file is
cut short or damaged.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.claims import shown
from self_pruner.tools.models.plain_file import parse_json, size_of

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of plain weights; any other is quantised or no weight
MOST_DIMENSIONS = 8
LARGEST_HEADER = 32 << 20  # bytes of a header or index, of which the largest models have a tenth


def read_header(shard: Path) -> dict[str, Any]:
    """The tensors a safetensors file declares, after checking that they fill the file exactly.

    Returns:
        A mapping from tensor name to its `dtype`, `shape` and `data_offsets` (bytes, from the end of the header).

    Raises:
        ModelError: when the file is missing, truncated or no safetensors file.
    """
    try:
        size = size_of(shard)
        with open(shard, "rb") as opened:
            prefix = opened.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if 8 + length > size:
                raise ModelError(f"{shard.name} is truncated: {size:,} bytes do not hold even its header")
            if length > LARGEST_HEADER:
                raise ModelError(
                    f"{shard.name} is damaged: its header claims {length:,} bytes, at most {LARGEST_HEADER:,} are read"
                )
            header = parse_json(opened.read(length))
        header.pop("__metadata__", None)
        if not all(map(_is_tensor, header.values())):
            raise ValueError("an entry is no tensor")
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        wrong = next((name for name, tensor in header.items() if not _fills_its_range(tensor)), None)
        astray = _out_of_line(header)
    except OSError as error:
        raise ModelError(f"{shard.name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"{shard.name} is no safetensors file: its header cannot be read") from error
    if size != end:
        fault = "truncated" if size < end else "damaged"
        raise ModelError(f"{shard.name} is {fault}: it has {size:,} bytes and its header declares {end:,}")
    if wrong is not None:
        raise ModelError(f"{shard.name} is damaged: tensor {shown(wrong)} does not have the size of its shape")
    if astray is not None:
        raise ModelError(f"{shard.name} is damaged: tensor {shown(astray)} does not begin where the one before it ends")
    return header


def _is_tensor(entry: object) -> bool:
    """Whether an entry of a header has a type, a shape and a range of bytes, and all of them are what they must be."""
    if not isinstance(entry, dict) or not isinstance(entry["dtype"], str):
        return False
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets]
    return (
        isinstance(shape, list)
        and len(shape) <= MOST_DIMENSIONS
        and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        and len(offsets) == 2
        and offsets[0] <= offsets[1]
    )


def _out_of_line(header: Mapping[str, Any]) -> str | None:
    """The first tensor that overlaps the one before it or leaves a gap, by their places in the file."""
    position = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = tensor["data_offsets"]
        if start != position:
            return name
        position = end
    return None


def _fills_its_range(tensor: dict[str, Any]) -> bool:
    """Whether a tensor's byte range fits its shape; types of quantised weights are judged elsewhere."""
    start, end = tensor["data_offsets"]
    width = DTYPE_BYTES.get(tensor["dtype"])
    return width is None or end - start == width * math.prod(tensor["shape"])
