"""The pruned model as a GGUF file for llama.cpp: architecture `deci`, which alone reads one size a layer.

llama.cpp's `llama` reads the sizes of layer 0 for all layers. `deci`, made for NVIDIA's pruned Llamas, takes arrays of
head counts and MLP widths, and its layers are Llama's: biases where a file has them, and rotary embedding of
neighbouring pairs, for which the rows of queries and keys change places within each head. Scaled frequencies go into
a tensor of factors. What its graph does not compute (norms of queries and keys, sliding windows, scaled attention) is
refused.

The file is written under another name, read again, compared tensor by tensor, and renamed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from self_pruner.memory.errors import ExportError
from self_pruner.memory.partials import partial_of
from self_pruner.tools.export.gguf.tokenizer import add_tokenizer, split_rules, tokenizer_definition
from self_pruner.tools.export.gguf.weights import PrunedWeights
from self_pruner.tools.export.naming import check_room, system_reason
from self_pruner.tools.export.serving import window_of

if TYPE_CHECKING:
    import numpy as np

GgufType = Literal["f32", "f16", "bf16"]
TYPES: tuple[GgufType, ...] = get_args(GgufType)
_DTYPES: dict[GgufType, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_STATIC_ROPE = ("default", "linear", "llama3")  # scalings that are factors of the frequencies, whatever the length


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the file states of itself besides its sizes."""

    name: str
    base_model: str  # hub id, or the name the user gave
    sparsity: float  # of the decoder blocks
    license: str | None = None


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A finished file."""

    path: Path
    type: GgufType
    bytes: int


def check_gguf(config: Any, tokenizer: Any = None) -> None:
    """Refuse what `deci` cannot express, from a config of transformers and the tokenizer where there is one.

    Raises:
        ExportError: says which layer and why.
        ExportError: llama.cpp has no rules for the tokenizer.
    """
    family = config.model_type
    where = "GGUF's architecture deci cannot express layer 0"
    if family == "qwen3":
        raise ExportError(f"{where} of a qwen3 model: it has no norms of queries and keys")
    if config.hidden_act not in ("silu", "swish"):
        raise ExportError(f"{where}: its MLP has the activation {config.hidden_act!r}, deci's has silu")
    if window := window_of(config):
        raise ExportError(f"{where}: its attention slides over {window} tokens, deci's does not")
    kind = config.rope_parameters.get("rope_type", "default")
    if kind not in _STATIC_ROPE:
        raise ExportError(f"{where}: its rotary embedding is scaled by {kind!r}; known are {', '.join(_STATIC_ROPE)}")
    if tokenizer is not None:
        split_rules(tokenizer_definition(tokenizer))


def write_gguf(
    model: PrunedWeights,
    tokenizer: Any,
    path: Path,
    facts: GgufFacts,
    *,
    type: GgufType | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GgufFile:
    """Write a pruned model as one GGUF file.

    Args:
        model: its weights; read only.
        tokenizer: its tokenizer; without one the file is of token ids alone.
        path: the file, which must not exist.
        facts: what the file states of itself.
        type: of the matrices; None takes the one that keeps the weights as they are. Vectors are always f32.
        progress: called with (bytes of weights written, bytes of weights in all).

    Raises:
        ExportError: what `check_gguf` refuses; a weight beyond the range of the type.
        ExportError: the file exists, there is no room or permission, or it reads back as something else.
    """
    check_gguf(model.config, tokenizer)
    natural = {dtype: known for known, dtype in _DTYPES.items()}
    chosen = type or natural[model.dtype]
    path = Path(os.path.abspath(path))
    if os.path.lexists(path):
        raise ExportError(f"{str(path)!r} exists already; name a file that does not.")
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # left by a process of our number, or a link that would be written through
        sums = _write(model, tokenizer, partial, facts, chosen, progress)
        _compare(partial, sums, model.sizes)
        size = partial.stat().st_size
        with partial.open("rb") as written:
            os.fsync(written.fileno())  # where a late 'disk full' shows
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(f"{str(path)!r} could not be written: {system_reason(error)}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return GgufFile(path, chosen, size)


def _write(
    model: PrunedWeights,
    tokenizer: Any,
    path: Path,
    facts: GgufFacts,
    type: GgufType,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    """Write the file and return a checksum of every tensor's bytes."""
    import gguf

    writer = gguf.GGUFWriter(path=None, arch="deci")
    _add_sizes(writer, model, type)
    _add_facts(writer, facts)
    add_tokenizer(writer, tokenizer, model.config.vocab_size)
    outline = dict(model.in_gguf(model.outline.items()))
    kinds: dict[str, GgufType] = {name: type if tensor.ndim > 1 else "f32" for name, tensor in outline.items()}
    sizes = {name: tensor.numel() * _DTYPES[kinds[name]].itemsize for name, tensor in outline.items()}
    total = sum(sizes.values())
    check_room(path, total)
    for name, tensor in outline.items():
        first = _array(name, torch.zeros_like(tensor[:1], device="cpu"), kinds[name])
        kind = gguf.GGMLQuantizationType[kinds[name].upper()]
        writer.add_tensor_info(name, (len(tensor), *first.shape[1:]), first.dtype, sizes[name], raw_dtype=kind)
    writer.write_header_to_file(path=path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    sums, done = {}, 0
    for name, tensor in model.in_gguf(model.tensors()):
        array = _array(name, tensor, kinds[name])
        writer.write_tensor_data(array)
        sums[name] = zlib.crc32(array.data)
        done += array.nbytes
        if progress is not None:
            progress(done, total)
    writer.close()
    return sums


def _array(name: str, tensor: Tensor, type: GgufType) -> np.ndarray[Any, Any]:
    """The tensor as numpy has it in that type; bf16, which numpy has not, as bytes."""
    tensor = tensor.detach().cpu()
    if type == "bf16":
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    found = tensor.to(_DTYPES[type]).contiguous()
    if not found.isfinite().all():
        raise ExportError(f"{name} holds numbers beyond the range of {type}: write it with --type bf16 or f32")
    return found.numpy()


def _add_sizes(writer: Any, model: PrunedWeights, type: GgufType) -> None:
    """What llama.cpp builds the model from."""
    import gguf

    config, sizes, shape = model.config, model.sizes, model.shape
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(shape.hidden)
    writer.add_head_count([groups * shape.heads_per_group for groups, _ in sizes])
    writer.add_head_count_kv([groups for groups, _ in sizes])
    writer.add_feed_forward_length([channels for _, channels in sizes])
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    kinds = gguf.LlamaFileType
    writer.add_file_type({"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "bf16": kinds.MOSTLY_BF16}[type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_facts(writer: Any, facts: GgufFacts) -> None:
    writer.add_name(facts.name)
    writer.add_description(
        f"{facts.base_model}, {100 * facts.sparsity:.2f}% of its decoder blocks removed by Self-Pruner, not retrained"
    )
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, facts.base_model)
    writer.add_tags(["self-pruner", "structured-pruning", "text-generation"])
    if facts.license is not None:
        writer.add_license(facts.license)


def _compare(path: Path, sums: dict[str, int], sizes: Sequence[tuple[int, int]]) -> None:
    """Read the file again: every tensor with the bytes that were meant, every layer with its sizes."""
    import gguf

    reader = gguf.GGUFReader(path)
    found = {}
    with path.open("rb") as file:  # the pages of the reader's mapping would look like memory of this process
        for tensor in reader.tensors:
            file.seek(tensor.data_offset)
            found[tensor.name] = zlib.crc32(file.read(tensor.n_bytes))
    wrong = sorted(name for name in sums.keys() | found.keys() if sums.get(name) != found.get(name))
    if wrong:
        raise ExportError(f"{str(path)!r} reads back as something else: {', '.join(wrong[:3])} differ.")
    for key, meant in (
        ("deci.attention.head_count_kv", [groups for groups, _ in sizes]),
        ("deci.feed_forward_length", [channels for _, channels in sizes]),
    ):
        if (read := reader.fields[key].contents()) != meant:
            raise ExportError(f"{str(path)!r} reads back as something else: {key} is {read}.")
