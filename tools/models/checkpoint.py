"""What can be known about a checkpoint folder before its weights are read.

Loading a model takes minutes and fails with a stack trace, or, worse, fills what is missing with random numbers. So the
folder is looked at first: the config, the headers of the safetensors files and their sizes. Pickled weights are refused
because reading them can run any program.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.claims import contradiction, senseless, shown
from self_pruner.tools.models.families import Family, family_of
from self_pruner.tools.models.plain_file import read_json, strange_file
from self_pruner.tools.models.safetensors_header import DTYPE_BYTES, LARGEST_HEADER, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
HASHED_WHOLE = 64 << 20  # files up to this many bytes are hashed whole, larger ones by samples of every tensor
SAMPLE = 16 << 10  # bytes at the start of a tensor
SETTLED = 2_000_000_000  # nanoseconds after which a file that changes again says so: no file system is coarser
COMPARED_ROWS = 4096  # of head and embedding at a time
LARGEST_CONFIG = 4 << 20  # bytes of a config.json


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that passed every check that needs no weights."""

    folder: Path
    family: Family
    config: dict[str, Any]  # config.json as it stands
    shards: tuple[Path, ...]  # safetensors files, sorted by name


def inspect(folder: Path) -> Checkpoint:
    """Checks a checkpoint folder, cheapest faults first, without reading weights but a head that is stored twice.

    Raises:
        ModelError: no config.json or an unreadable one, another architecture, quantised weights, no weights or
            pickled ones, a truncated or damaged safetensors file, an index that names what is not there, or weights
            that are not those of the config, such as a head of its own where the config ties it.
    """
    check_files(folder)
    config = read_config(folder / "config.json")
    family = check_config(config)
    expected = _shards(folder)
    shapes: dict[str, list[int]] = {}
    for shard, names in expected.items():
        header = read_header(shard)
        absent = sorted(names - header.keys())
        if absent:
            raise ModelError(f"{shard.name} lacks the tensor {shown(absent[0])} that {INDEX} says it holds")
        for name, tensor in header.items():
            if tensor["dtype"] not in DTYPE_BYTES:
                raise ModelError(
                    f"tensor {shown(name)} in {shard.name} has type {tensor['dtype'][:20]}; pruning needs plain weights"
                    f" ({', '.join(DTYPE_BYTES)}), so start from the model that was not quantised"
                )
            shapes[name] = tensor["shape"]
    if fault := contradiction(config, shapes):
        raise ModelError(f"the checkpoint in {str(folder)!r} {fault}")
    shards = tuple(sorted(expected))
    if config.get("tie_word_embeddings") and "lm_head.weight" in shapes and _own_head(shards):
        raise ModelError(
            f"the checkpoint in {str(folder)!r} holds an lm_head.weight that is not that of its embedding, and its "
            "config.json says tie_word_embeddings: say false there to keep the head, or leave it out of the files"
        )
    return Checkpoint(folder, family, config, shards)


def _own_head(shards: Sequence[Path]) -> bool:
    """Whether the stored head differs from the embedding, a few rows at a time; a copy of it is as good as none."""
    import torch

    from self_pruner.tools.models.tensor_files import TensorFiles

    files = TensorFiles(shards)
    head = "lm_head.weight"
    embedding = next(name for name in ("model.embed_tokens.weight", "embed_tokens.weight") if name in files.stored)
    rows = files.stored[head].shape[0]
    parts = (range(start, min(start + COMPARED_ROWS, rows)) for start in range(0, rows, COMPARED_ROWS))
    return not all(torch.equal(files.read(head, part).float(), files.read(embedding, part).float()) for part in parts)


def check_files(folder: Path) -> None:
    """Refuses a folder with what no reader would come back from; raises ModelError."""
    if fault := strange_file(folder):
        raise ModelError(f"{str(folder)!r} holds no checkpoint: {fault}")


def has_weights(folder: Path) -> bool:
    """Whether the folder holds anything that looks like weights, good or bad."""
    suffixes = (*PICKLES, ".safetensors", ".gguf", INDEX)
    return any(path.name.endswith(suffixes) for path in folder.iterdir())


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json; ModelError when there is none or it is no JSON object."""
    try:
        config = read_json(path, LARGEST_CONFIG)
    except FileNotFoundError:
        raise ModelError(
            f"{str(path.parent)!r} has no config.json; a model folder holds config.json, safetensors and a tokenizer"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{str(path)!r} must be a JSON object, it is a {type(config).__name__}")
    return config


def check_config(config: dict[str, Any]) -> Family:
    """The family of a checkpoint by its config.

    Raises:
        ModelError: another architecture, quantised weights, or sizes that no model has.
    """
    family = family_of(config)
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            method = config[key].get("quant_method", "unknown") if isinstance(config[key], dict) else "unknown"
            raise ModelError(
                f"this checkpoint is quantised (method {method!r}): pruning needs plain weights,"
                " so start from the model that was not quantised"
            )
    if fault := senseless(config):
        raise ModelError(f"the config.json describes no model: {fault}")
    return family


def check_names(names: Iterable[str], where: str) -> None:
    """Whether a list of file names contains safetensors weights; `where` names the place in the error.

    Raises:
        ModelError: when the weights are in pickle files only, or not in the expected place.
    """
    names = set(names)
    if names & {WEIGHTS, INDEX}:
        return
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise ModelError(
            f"the weights in {where} are pickled ({pickles[0]}), and reading a pickle can run any program;"
            " convert them to safetensors first"
        )
    others = sorted(name for name in names if name.endswith((".safetensors", ".gguf")))
    found = f" (found {others[0]}, which is neither)" if others else ""
    raise ModelError(f"{where} has no weights: neither {WEIGHTS} nor {INDEX}{found}")


def fingerprint(checkpoint: Checkpoint) -> str:
    """`digest_of` a folder that was inspected."""
    return _digest(checkpoint.config, checkpoint.shards)


def digest_of(folder: Path) -> str:
    """A hex digest of config and weights, the same for equal files wherever they lie, of any family.

    Files up to 64 MiB are hashed whole; of larger ones the header, the size and the first 16 KiB of every tensor, so
    that a model of any size takes seconds.

    Raises:
        ModelError: no config.json or an unreadable one, no weights or pickled ones, a truncated or damaged
            safetensors file, or an index that names what is not there.
    """
    check_files(folder)
    return _digest(read_config(folder / "config.json"), whole_shards(folder))


def whole_shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder, sorted by name, every one of them whole; raises as `digest_of` does."""
    shards = sorted(_shards(folder))
    for shard in shards:
        read_header(shard)
    return shards


class _State(NamedTuple):
    """A file as it is now: whoever writes to it changes one of these."""

    path: Path
    changed: int  # nanoseconds since 1970; nobody can set it
    written: int
    size: int
    device: int
    inode: int


def _state(path: Path) -> _State:
    now = path.stat()
    return _State(path.absolute(), now.st_ctime_ns, now.st_mtime_ns, now.st_size, now.st_dev, now.st_ino)


def _digest(config: Mapping[str, Any], shards: Iterable[Path]) -> str:
    """The digest, which for a large model takes seconds, and so is made once while none of its files changes."""
    told = {"transformers_version", "_name_or_path"}  # who saved it, not what it is
    told_apart = {key: value for key, value in config.items() if key not in told}
    states = tuple(map(_state, shards))
    settled = time.time_ns() - max(state.changed for state in states) > SETTLED
    return (_read_digest if settled else _read_digest.__wrapped__)(json.dumps(told_apart, sort_keys=True), states)


@lru_cache(maxsize=8)
def _read_digest(config: str, shards: tuple[_State, ...]) -> str:
    digest = hashlib.sha256(config.encode())
    for shard in shards:
        digest.update(f"{shard.path.name}:{shard.size};".encode())
        with open(shard.path, "rb") as opened:
            if shard.size <= HASHED_WHOLE:
                digest.update(opened.read())
                continue
            length = opened.read(8)
            digest.update(length)
            digest.update(opened.read(struct.unpack("<Q", length)[0]))
            data = opened.tell()
            offsets = sorted(tensor["data_offsets"] for tensor in read_header(shard.path).values())
            for start, end in offsets:
                opened.seek(data + start)
                digest.update(opened.read(min(SAMPLE, end - start)))
    return digest.hexdigest()


def _shards(folder: Path) -> dict[Path, set[str]]:
    """The safetensors files that make up the model, each with the tensors the index says it holds."""
    check_names((path.name for path in folder.iterdir()), repr(str(folder)))
    if (folder / WEIGHTS).exists():  # as transformers prefers it
        return {folder / WEIGHTS: set()}
    try:
        weight_map = read_json(folder / INDEX, LARGEST_HEADER)["weight_map"]
        shards: dict[Path, set[str]] = {}
        for tensor, name in weight_map.items():
            if not _is_shard(name):  # the library would follow it to wherever it leads
                raise ModelError(f"{INDEX} names {shown(name)}, which is no safetensors file of its own folder")
            shards.setdefault(folder / name, set()).add(tensor)
    except OSError as error:
        raise ModelError(f"{INDEX} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{INDEX} is no index of safetensors: it needs a 'weight_map' object") from error
    for shard in sorted(shards):
        if not shard.is_file():
            raise ModelError(f"{INDEX} names {shard.name!r}, which is not in {str(folder)!r}")
    return shards


def _is_shard(name: object) -> bool:
    """Whether an index may name this as a file of its folder."""
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")
