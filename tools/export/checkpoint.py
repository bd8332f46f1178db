"""The pruned model as a Hugging Face folder: really smaller tensors, one width a layer in its config, and its own code.

Everything is written to `<folder>.partial` and renamed at the end, so `folder` either is complete or does not exist;
what is published is verified before that.
`config.json` keeps the dense widths as global values and states every layer's own in `per_layer_config`, which
transformers and vLLM both read; `modeling_self_pruner.py` beside it builds the layers from there. For vLLM's own DeciLM
class only the architecture's name differs. A model of one width is an ordinary checkpoint of its family instead.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file

from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts, model_card
from self_pruner.tools.export.naming import UNFINISHED, begin, clear, flush, give_name
from self_pruner.tools.export.provenance import provenance_of, write_provenance
from self_pruner.tools.export.serving import Serving, check_profile
from self_pruner.tools.models.families import family_of
from self_pruner.tools.models.foreign_code import CLASS_STEMS, MODELING_FILE, auto_map_of
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.pruning.smaller_model import smaller_state_dict
from self_pruner.tools.text.quantities import size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from self_pruner.tools.pruning.elastic import ElasticModel

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished checkpoint."""

    folder: Path
    parameters: int  # counted from the tensors written, a tied head once
    bytes: int  # of all files
    shards: int


def export(
    elastic: ElasticModel,
    profile: Profile,
    tokenizer: Any,
    folder: Path,
    card: CardFacts,
    *,
    serving: Serving = "transformers",
    generation_config: Any = None,
    replace: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> Exported:
    """Write the model that `profile` cuts from `elastic`, with its compensation, as a folder that loads on its own.

    Args:
        elastic: The target model, reordered; read only.
        profile: Units kept in every layer.
        tokenizer: Its tokenizer, or None to leave it out.
        folder: Where to; must not exist yet unless `replace`.
        card: What the model card states.
        serving: What will serve it.
        generation_config: Defaults to the target model's own.
        replace: Put the new folder in the place of an existing one, once it is complete.
        shard_bytes: Largest size of one safetensors file, in bytes.
        progress: Called with (bytes of weights written, bytes of weights in all).
        check: Called with the whole folder before it gets its name, which it never does where this raises.

    Raises:
        ExportError: The folder exists already, or there is no room or no permission to write it.
        ModelError: The profile is not one of the model's.
        ExportError: The format cannot express the profile.
    """
    config = pruned_config(elastic, profile, serving)
    folder = Path(os.path.abspath(folder))
    with new_folder(folder, replace=replace) as partial:
        tensors = smaller_state_dict(elastic, profile)
        check_room(folder, sum(tensor.nbytes for tensor in tensors.values()))
        shards = _write_weights(tensors, partial, shard_bytes, progress)
        config.save_pretrained(partial)
        if serving != "uniform":
            shutil.copyfile(MODELING_FILE, partial / MODELING_FILE.name)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        # to_json_file and not save_pretrained: published configs exist that the latter refuses to write
        (generation_config or elastic.model.generation_config).to_json_file(partial / "generation_config.json")
        (partial / "README.md").write_text(str(model_card(card, profile, elastic.space)), encoding="utf-8")
        write_provenance(partial, provenance_of(card, profile, elastic.space))
        parameters = sum(tensor.numel() for tensor in tensors.values())
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())  # the mark is empty
        flush(partial)
        if check is not None:
            check(partial)
    return Exported(folder, parameters, size, shards)


def pruned_config(elastic: ElasticModel, profile: Profile, serving: Serving = "transformers") -> PreTrainedConfig:
    """`config_of` what `profile` cuts from `elastic`."""
    dtype, bias = str(elastic.dtype).removeprefix("torch."), elastic.compensation == "bias"
    return config_of(elastic.model.config, elastic.space, profile, dtype=dtype, serving=serving, bias=bias)


def config_of(
    dense: Any, space: Space, profile: Profile, *, dtype: str, serving: Serving = "transformers", bias: bool = False
) -> PreTrainedConfig:
    """The config of the smaller model: dense widths globally, each layer's own in `per_layer_config`.

    For the serving format `uniform` it is the family's own with the one width of all layers.

    Args:
        dense: The config of the dense model.
        space: Of the profile.
        profile: Units kept in every layer.
        dtype: Of the weights.
        serving: What will serve it.
        bias: Whether output projections have biases that make up for removed units.

    Raises:
        ExportError: The format cannot express the profile.
    """
    from self_pruner.tools.export import modeling_self_pruner

    check_profile(serving, space, profile)
    stem = CLASS_STEMS[dense.model_type]
    heads_per_group = dense.num_attention_heads // dense.num_key_value_heads
    head_dim = getattr(dense, "head_dim", None) or dense.hidden_size // dense.num_attention_heads
    settings = dense.to_dict()
    for key in ("model_type", "architectures", "auto_map", "transformers_version", "quantization_config"):
        settings.pop(key, None)
    settings |= {"head_dim": head_dim, "dtype": dtype}
    if serving == "uniform":
        groups, channels = space.sizes(profile)[0]
        settings |= {
            "architectures": [family_of(dense).architecture],
            "num_attention_heads": groups * heads_per_group,
            "num_key_value_heads": groups,
            "intermediate_size": channels,
        }
        stock = type(dense)(**settings)
        stock.name_or_path = ""
        return stock
    settings |= {
        "architectures": ["DeciLMForCausalLM" if serving == "vllm-native" else f"{stem}ForCausalLM"],
        "auto_map": auto_map_of(dense.model_type),
        "per_layer_config": {
            layer: {
                "num_attention_heads": groups * heads_per_group,
                "num_key_value_heads": groups,
                "intermediate_size": channels,
            }
            for layer, (groups, channels) in enumerate(space.sizes(profile))
        },
        "allow_global_per_layer_attribute_access": True,  # engines look at the global widths before the layers'
        "serialize_explicit_per_layer_config": True,
        # DeciLM has biases where these say so: those of queries, keys and values alone in Qwen2
        **({"qkv_bias": True} if serving == "vllm-native" and dense.model_type == "qwen2" else {}),
        "compensation_bias": bias,  # o_proj and down_proj then have biases in any family
    }
    config = getattr(modeling_self_pruner, f"{stem}Config")(**settings)
    config.name_or_path = ""  # a path on this machine is nobody else's business
    return config


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to be filled, which gets its name at the end of the block; of a block that raises nothing is left.

    Args:
        folder: the name, an absolute path.
        replace: whether something of that name may be there, which then gives way.

    Raises:
        ExportError: something is there, or it cannot be written.
    """
    if os.path.lexists(folder) and not replace:
        raise ExportError(f"{str(folder)!r} exists already; name a folder that does not.")
    try:
        partial = begin(folder)
    except OSError as error:
        raise ExportError(f"Nothing can be written beside {str(folder)!r}: {system_reason(error)}.") from error
    if partial is None:
        way = folder.with_name(f"{folder.name}.partial")
        raise ExportError(f"{str(way)!r} is in the way and was not left by an export; move it elsewhere.")
    try:
        yield partial
        give_name(partial, folder, replace=replace)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"The checkpoint could not be written to {str(folder)!r}: {system_reason(error)}.") from error
    finally:
        with suppress(OSError):  # the next export clears it
            clear(partial)


def check_room(path: Path, needed: int) -> None:
    """Refuse before the long write of `path` what cannot fit: so many bytes.

    Raises:
        ExportError: says how much is needed and how much there is.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ExportError(
            f"The checkpoint needs {size(needed)}, and the disk of {str(path.parent)!r} has {size(free)} left."
        )


def _write_weights(
    tensors: dict[str, torch.Tensor],
    folder: Path,
    shard_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Write safetensors of at most `shard_bytes` each, with an index if there are several; returns how many."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=shard_bytes)
    done = 0
    for filename, names in split.filename_to_tensors.items():
        shard = {name: tensors[name].detach().to("cpu").contiguous() for name in names}
        save_file(shard, folder / filename, metadata={"format": "pt"})
        shutil.copymode(folder / UNFINISHED, folder / filename)  # safetensors lets nobody else read its files
        done += sum(tensor.nbytes for tensor in shard.values())
        if progress is not None:
            progress(done, total)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return len(split.filename_to_tensors)


def system_reason(error: Exception) -> str:
    """What the system said, without paths and numbers that say nothing to a person."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
