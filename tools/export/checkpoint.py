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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts, model_card
from self_pruner.tools.export.naming import check_room, flush, new_folder
from self_pruner.tools.export.provenance import provenance_of, write_provenance
from self_pruner.tools.export.serving import Serving, check_profile
from self_pruner.tools.models.families import family_of, geometry
from self_pruner.tools.models.foreign_code import CLASS_STEMS, MODELING_FILE, auto_map_of
from self_pruner.tools.models.tensor_files import SHARD_BYTES, write_sharded
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.pruning.smaller_model import smaller_outline, smaller_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from self_pruner.tools.pruning.elastic import ElasticModel


def export(
    elastic: ElasticModel,
    profile: Profile,
    tokenizer: Any,
    folder: Path,
    card: CardFacts,
    *,
    serving: Serving = "transformers",
    replace: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write the model that `profile` cuts from `elastic`, with its compensation, as a folder that loads on its own.

    Args:
        elastic: The target model, reordered; read only.
        profile: Units kept in every layer.
        tokenizer: Its tokenizer, or None to leave it out.
        folder: Where to; must not exist yet unless `replace`.
        card: What the model card states.
        serving: What will serve it.
        replace: Put the new folder in the place of an existing one, once it is complete.
        shard_bytes: Largest size of one safetensors file, in bytes.
        progress: Called with (bytes of weights written, bytes of weights in all).
        check: Called with the whole folder before it gets its name, which it never does where this raises.

    Returns:
        The folder, as an absolute path.

    Raises:
        ExportError: The folder exists already, or there is no room or no permission to write it.
        ModelError: The profile is not one of the model's.
        ExportError: The format cannot express the profile.
    """
    dense, dtype = elastic.model.config, str(elastic.dtype).removeprefix("torch.")
    config = config_of(dense, elastic.space, profile, dtype=dtype, serving=serving, bias=elastic.compensation == "bias")
    folder = Path(os.path.abspath(folder))
    with new_folder(folder, replace=replace) as partial:
        outline = smaller_outline(elastic, profile)
        check_room(folder, sum(tensor.nbytes for tensor in outline.values()))
        write_sharded(partial, outline, smaller_tensors(elastic, profile), shard_bytes, progress)
        config.save_pretrained(partial)
        if serving != "uniform":
            shutil.copyfile(MODELING_FILE, partial / MODELING_FILE.name)
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial)
        # to_json_file and not save_pretrained: published configs exist that the latter refuses to write
        elastic.model.generation_config.to_json_file(partial / "generation_config.json")
        (partial / "README.md").write_text(str(model_card(card, profile, elastic.space)), encoding="utf-8")
        write_provenance(partial, provenance_of(card, profile, elastic.space))
        flush(partial)
        if check is not None:
            check(partial)
    return folder


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer so that it loads again.

    Where a tokenizer is of a class of its own, transformers writes the names of a slow and a fast one, and reads these.
    Of a class without "Tokenizer" in its name it writes one name, of which it then reads a letter.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = config.get("auto_map")
    if isinstance(named, dict) and isinstance(name := named.get("AutoTokenizer"), str):
        named["AutoTokenizer"] = [name, None]
        path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


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
    shape = geometry(dense)
    layers = [
        {
            "num_attention_heads": groups * shape.heads_per_group,
            "num_key_value_heads": groups,
            "intermediate_size": channels,
        }
        for groups, channels in space.sizes(profile)
    ]
    settings = dense.to_dict()
    for key in ("model_type", "architectures", "auto_map", "transformers_version", "quantization_config"):
        settings.pop(key, None)
    settings |= {"head_dim": shape.head_dim, "dtype": dtype}
    if serving == "uniform":
        stock = type(dense)(**settings | {"architectures": [family_of(dense).architecture], **layers[0]})
        stock.name_or_path = ""
        return stock
    settings |= {
        "architectures": ["DeciLMForCausalLM" if serving == "vllm-native" else f"{stem}ForCausalLM"],
        "auto_map": auto_map_of(dense.model_type),
        "per_layer_config": dict(enumerate(layers)),
        "allow_global_per_layer_attribute_access": True,  # engines look at the global widths before the layers'
        "serialize_explicit_per_layer_config": True,
        # DeciLM has biases where these say so: those of queries, keys and values alone in Qwen2
        **({"qkv_bias": True} if serving == "vllm-native" and dense.model_type == "qwen2" else {}),
        "compensation_bias": bias,  # o_proj and down_proj then have biases in any family
    }
    config = getattr(modeling_self_pruner, f"{stem}Config")(**settings)
    config.name_or_path = ""  # a path on this machine is nobody else's business
    return config
