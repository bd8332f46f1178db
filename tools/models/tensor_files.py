"""Safetensors files a tensor at a time: what is read takes the memory of that tensor, and so does what is written.

Files are read, not mapped: a file that becomes shorter under a mapping kills the process, and the pages of a mapping
look like memory of it. What is written are the bytes that the library's `save_file` writes of the same tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from self_pruner.memory.errors import ModelError
from self_pruner.memory.partials import partial_of
from self_pruner.tools.models.safetensors_header import read_header

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ORDER = ("F64", "F32", "BF16", "F16")  # of types in a file, as the library has it
SHARD_BYTES = 5_000_000_000  # of one file, at most
ALIGNED = 8  # bytes to a multiple of which the header is filled up with spaces


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies in a file."""

    shard: Path
    offset: int  # bytes from the start of the file
    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFiles:
    """The tensors of a checkpoint by name, read one at a time into memory of their own."""

    def __init__(self, shards: Sequence[Path]) -> None:
        """Read the headers of `shards`.

        Raises:
            ModelError: one is missing, damaged or truncated, or holds a type that is no plain weight.
        """
        self.stored: dict[str, Stored] = {}
        self._found = {shard: _state(shard) for shard in shards}
        for shard in shards:
            header = read_header(shard)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
            base = self._found[shard][0] - end  # the header was held against the size of the file
            for name, tensor in header.items():
                if tensor["dtype"] not in DTYPES:
                    raise ModelError(f"tensor {name!r} in {shard.name} has type {tensor['dtype']}, which is no weight")
                offset = base + tensor["data_offsets"][0]
                self.stored[name] = Stored(shard, offset, DTYPES[tensor["dtype"]], tuple(tensor["shape"]))

    def read(self, name: str, rows: range | None = None) -> Tensor:
        """One tensor, or neighbouring rows of it, on the CPU, in the type of the file.

        Raises:
            ModelError: there is none of that name, or the file cannot be read or has changed since it was opened.
        """
        where = self.stored.get(name)
        if where is None:
            raise ModelError(f"the checkpoint has no tensor {name!r}")
        first = 0 if rows is None else rows.start
        tensor = torch.empty(where.shape if rows is None else (len(rows), *where.shape[1:]), dtype=where.dtype)
        room = _bytes_of(tensor)
        try:
            with open(where.shard, "rb", buffering=0) as file:
                file.seek(where.offset + first * where.dtype.itemsize * torch.Size(where.shape[1:]).numel())
                done = 0
                while done < len(room):
                    count = file.readinto(room[done:])
                    if not count:
                        raise ModelError(f"{where.shard.name} became shorter while it was read")
                    done += count
            if _state(where.shard) != self._found[where.shard]:
                raise ModelError(f"{where.shard.name} changed while it was read: begin again with a file that stays")
        except OSError as error:
            raise ModelError(f"{where.shard.name} cannot be read any more: {error.strerror}") from error
        return tensor


def save_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write `tensors` aside and rename, so that a file of this name is always whole.

    Raises:
        OSError: it cannot be written; nothing is left of it.
        SafetensorError: the same, as the library says it.
    """
    aside = partial_of(path)
    aside.unlink(missing_ok=True)  # a link by that name would be written through
    try:
        save_file(tensors, aside, metadata)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


class TensorWriter:
    """A safetensors file that is filled a tensor at a time, and has its name once all of them are there."""

    def __init__(
        self, path: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]], metadata: Mapping[str, str]
    ) -> None:
        """Write the header, aside; `tensors` says of each its type and its shape.

        Raises:
            OSError: the file cannot be made.
        """
        self.path, self._aside = path, partial_of(path)
        header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
        self._offsets: dict[str, int] = {}
        self._expected = {name: (dtype, tuple(shape)) for name, (dtype, shape) in tensors.items()}
        end = 0
        for name in sorted(tensors, key=lambda name: (ORDER.index(NAMES[tensors[name][0]]), name)):
            dtype, shape = self._expected[name]
            start, end = end, end + dtype.itemsize * torch.Size(shape).numel()
            self._offsets[name] = start
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % ALIGNED)
        self._data = 8 + len(text)
        self._missing = set(tensors)
        self._aside.unlink(missing_ok=True)  # a link by that name would be written through
        self._file = open(self._aside, "xb")  # noqa: SIM115 - closed by __exit__
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + end)

    def write(self, name: str, tensor: Tensor) -> None:
        """Put one tensor in its place, once."""
        if name not in self._missing or self._expected[name] != (tensor.dtype, tuple(tensor.shape)):
            raise ValueError(f"{name!r} as {tensor.dtype} {list(tensor.shape)} has no place in {self.path.name}")
        self._file.seek(self._data + self._offsets[name])
        self._file.write(_bytes_of(tensor.detach().cpu().contiguous()))
        self._missing.remove(name)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name; of a block that raises nothing is left."""
        try:
            self._file.close()
            if kind is None:
                if self._missing:
                    raise ValueError(f"{self.path.name} lacks {sorted(self._missing)[0]!r}")
                os.replace(self._aside, self.path)
        finally:
            self._aside.unlink(missing_ok=True)


def write_sharded(
    folder: Path,
    outline: Mapping[str, Tensor],
    tensors: Iterable[tuple[str, Tensor]],
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `model.safetensors` a tensor at a time, or several files and their index, named as the library names them.

    Args:
        folder: where to.
        outline: every tensor on the meta device.
        tensors: the same with their numbers, in any order.
        shard_bytes: largest size of one file.
        progress: called with (bytes written, bytes in all).

    Raises:
        OSError: a file cannot be written; nothing is left of those that were begun.
    """
    total, done = sum(tensor.nbytes for tensor in outline.values()), 0
    split = split_torch_state_dict_into_shards(dict(outline), max_shard_size=shard_bytes)
    with ExitStack() as files:
        writers = {}
        for filename, names in split.filename_to_tensors.items():
            expected = {name: (outline[name].dtype, outline[name].shape) for name in names}
            writers[filename] = files.enter_context(TensorWriter(folder / filename, expected, {"format": "pt"}))
        for name, tensor in tensors:
            writers[split.tensor_to_filename[name]].write(name, tensor)
            done += tensor.nbytes
            if progress is not None:
                progress(done, total)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    if not tensor.numel():
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _state(shard: Path) -> tuple[int, int, int]:
    """What changes when a file is written to or replaced."""
    try:
        found = os.stat(shard)
    except OSError as error:
        raise ModelError(f"{shard.name} cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns, found.st_ino
