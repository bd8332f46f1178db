"""What will serve the result, and what that asks of a profile: of which units it is made, and what cannot be expressed.

A search that knows its engine needs no repair afterwards. All that an engine wants follows from the size of the units:
widths that divide, head counts that divide, attention left whole. So nothing but the space of profiles changes.

- transformers: anything; the checkpoint brings its own modelling file.
- vllm: the same folder on vLLM's transformers backend. MLP widths are multiples of 128 (64 for small models), because
  matrix kernels lose what unaligned widths save, and head counts are multiples of the tensor-parallel size.
- vllm-native: vLLM's own DeciLM class (`nemotron_nas.py`), which takes an MLP width a layer and one head count for all.
- uniform: one width for all layers, which the family's stock class loads without any code of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.models.checkpoint import read_config
from self_pruner.tools.models.families import Geometry, family_of, geometry, mlp_unit_of, sliding_window
from self_pruner.tools.profiles.space import Space

Serving = Literal["transformers", "vllm", "vllm-native", "uniform"]

NATIVE_FAMILIES = ("llama", "mistral", "qwen2")  # whose layers DeciLM's are, up to the width of the MLP


@dataclass(frozen=True, slots=True)
class Units:
    """The sizes of the units of a space."""

    mlp: int  # channels
    attention: int  # KV groups


def units_for(
    target: Serving, config: Any, *, mlp_unit: int | None = None, tensor_parallel: int = 1, bias: bool = False
) -> Units:
    """The units of profiles that `target` can express and serves well.

    Args:
        target: what will serve the result.
        config: of the dense model, as transformers has it.
        mlp_unit: channels in an MLP unit if the user chose them.
        tensor_parallel: devices that share a layer.
        bias: whether bias compensation adds biases to the output projections.

    Raises:
        ExportError: the model has what the format cannot express, or a size does not divide as it must.
        SettingsError: the MLP unit does not fit the model.
    """
    shape = geometry(config)
    if target == "vllm-native":
        _check_native(config)
    if bias and target in ("vllm-native", "uniform"):
        raise ExportError(
            f"--target {target} has no biases for --compensation bias in its output projections: use lstsq or none"
        )
    aligned = target in ("vllm", "vllm-native")
    mlp = _aligned_unit(target, shape, mlp_unit) if aligned else mlp_unit_of(shape, mlp_unit)
    if mlp % tensor_parallel:
        raise ExportError(
            f"--tensor-parallel {tensor_parallel} does not divide an MLP unit of {mlp} channels: it can't be shared out"
        )
    if shape.n_groups % tensor_parallel:
        raise ExportError(
            f"--tensor-parallel {tensor_parallel} does not divide the model's {shape.n_groups} KV heads: they can't be "
            "shared out"
        )
    return Units(mlp, shape.n_groups if target == "vllm-native" else tensor_parallel)


def expressible_heads(target: Serving, config: Any) -> frozenset[int]:
    """KV heads that every layer of a stock model of this family may have; for other formats all there are.

    Llama's own config refuses query heads that do not divide the hidden size, whatever the head size. vLLM's class of
    Qwen2 takes the hidden size over the heads for the head size, whatever the config says.
    """
    shape, family = geometry(config), family_of(config).model_type
    counts = range(1, shape.n_groups + 1)
    if target == "uniform" and family == "llama":
        return frozenset(count for count in counts if shape.hidden % (count * shape.heads_per_group) == 0)
    if target == "uniform" and family == "qwen2":
        heads = shape.hidden // shape.head_dim
        return frozenset(count for count in counts if count * shape.heads_per_group == heads) or frozenset(counts)
    return frozenset(counts)


def check_profile(target: Serving, space: Space, profile: Profile) -> None:
    """Refuse a profile that `target` cannot express.

    Raises:
        ExportError: says which layer and why.
    """
    for layer, (groups, blocks) in enumerate(zip(profile.attention, profile.mlp, strict=True)):
        if target == "vllm-native" and groups < space.n_groups:
            raise ExportError(
                f"--target vllm-native cannot express layer {layer}: it keeps {groups} of {space.n_groups} attention "
                "units, and DeciLM has one number of heads for all layers; --target vllm takes it"
            )
        if target == "uniform" and (groups, blocks) != (profile.attention[0], profile.mlp[0]):
            raise ExportError(
                f"--target uniform cannot express layer {layer}: it keeps {groups} attention and {blocks} MLP units, "
                f"layer 0 keeps {profile.attention[0]} and {profile.mlp[0]}; --target transformers takes it"
            )


def _aligned_unit(target: Serving, shape: Geometry, mlp_unit: int | None) -> int:
    """An MLP unit that is a multiple of 128 channels, of 64 for small models."""
    multiple = 128 if shape.hidden >= 2048 else 64
    unit = multiple if mlp_unit is None else mlp_unit
    if unit % multiple or shape.intermediate % unit:
        raise ExportError(
            f"--target {target} keeps MLP widths at multiples of {multiple}: an MLP unit must be one that divides the "
            f"model's {shape.intermediate} channels, and {unit} is none; --target transformers takes any width"
        )
    return unit


def _check_native(config: Any) -> None:
    family = family_of(config).model_type
    if family not in NATIVE_FAMILIES:
        raise ExportError(
            f"--target vllm-native cannot express layer 0 of a {family} model: DeciLM's attention has no norms of "
            f"queries and keys; it takes {', '.join(NATIVE_FAMILIES)}, and --target vllm takes {family} too"
        )
    if window := window_of(config):
        raise ExportError(
            f"--target vllm-native cannot express layer 0: its attention slides over {window} tokens, DeciLM's does "
            "not; --target vllm takes it"
        )


def window_of(config: Any) -> int | None:
    """Tokens that attention slides over; None where it sees the whole context."""
    window = sliding_window(config)
    return None if window is None or window >= config.max_position_embeddings else window


def vllm_options(folder: Path, tensor_parallel: int = 1) -> dict[str, Any]:
    """How vLLM loads an exported folder: with its own class where the folder names one, else with transformers'.

    The folder's code has been vouched for.
    """
    config = read_config(folder / "config.json")
    options: dict[str, Any] = {}
    if "auto_map" in config:
        options["trust_remote_code"] = True
        if config["architectures"] != ["DeciLMForCausalLM"]:
            options["model_impl"] = "transformers"
    return options | ({"tensor_parallel_size": tensor_parallel} if tensor_parallel > 1 else {})
