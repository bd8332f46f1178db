"""The model families that can be pruned, and the shape of their units.

All four share one decoder block (grouped-query attention with q, k, v and o projections, then a gated MLP), so a family
is little more than a name: the differences (attention biases in Qwen2, q/k norms in Qwen3, tied embeddings, multi-head
attention) are read from the modules themselves. A unit of attention is a whole KV group, because `repeat_kv` pairs
query heads with key heads by position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.memory.profile import Part
from self_pruner.tools.profiles.space import Space

if TYPE_CHECKING:  # the command line knows the families without loading torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Family:
    """One model family: `model_type` in config.json and the causal LM class of transformers."""

    model_type: str
    architecture: str


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "LlamaForCausalLM"),
    "mistral": Family("mistral", "MistralForCausalLM"),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM"),
}
WINDOWED = ("mistral", "qwen2", "qwen3")  # whose attention may slide


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a dense model; the same in every layer."""

    n_layers: int
    hidden: int  # width of the residual stream
    n_groups: int  # key/value heads a layer
    heads_per_group: int  # query heads that share one key/value head
    head_dim: int
    intermediate: int  # MLP channels a layer
    vocab: int

    @property
    def group_width(self) -> int:
        """Rows of q_proj, and columns of o_proj, that belong to one KV group."""
        return self.heads_per_group * self.head_dim

    @property
    def channels(self) -> dict[Part, int]:
        """Input channels of o_proj and of down_proj."""
        return {"attention": self.n_groups * self.group_width, "mlp": self.intermediate}

    @property
    def gram_bytes(self) -> int:
        """Bytes of the Gram matrices of all layers, float32."""
        return 4 * self.n_layers * sum(n**2 for n in self.channels.values())

    @property
    def refit_bytes(self) -> int:
        """Bytes at work on one place: a Gram matrix in three orders, or in float32 and in float64."""
        return 12 * max(self.channels.values()) ** 2


def family_of(config: Any) -> Family:
    """The family of a transformers config, or of a plain mapping read from config.json.

    Raises:
        ModelError: for another architecture, or a model whose layers already differ in size.
    """
    fields = config if isinstance(config, Mapping) else config.to_dict()
    model_type, architectures = fields.get("model_type"), fields.get("architectures")
    supported = ", ".join(FAMILIES)
    if fields.get("per_layer_config"):
        raise ModelError(
            "this model is pruned already: its layers differ in size (per_layer_config); start from the dense model"
        )
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelError(f"models of type {model_type!r} cannot be pruned; supported families: {supported}")
    if architectures and not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
        raise ModelError("the 'architectures' of this model must be a list of names")
    if architectures and family.architecture not in architectures:
        raise ModelError(
            f"architecture {architectures[0]!r} is no causal language model of a supported family;"
            f" for {model_type!r} it must be {family.architecture!r}"
        )
    return family


def geometry(config: Any) -> Geometry:
    """The sizes of the dense model that a transformers config describes."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return Geometry(
        n_layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        n_groups=groups,
        heads_per_group=heads // groups,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
    )


def sliding_window(config: Any) -> int | None:
    """Tokens that attention slides over; None in a family whose attention never does, whatever the config says."""
    if config.model_type not in WINDOWED:
        return None
    window: int | None = config.sliding_window
    return window if config.model_type == "mistral" or config.use_sliding_window else None  # Mistral has no switch


def mlp_unit_of(shape: Geometry, mlp_unit: int | None = None) -> int:
    """Channels in an MLP unit: `mlp_unit` if given, else 128 for hidden sizes from 2048 and 32 below.

    The default is lowered to the largest multiple of 8 that divides the intermediate size.

    Raises:
        SettingsError: when the given size is no multiple of 8 that divides the intermediate size, or none exists.
    """
    if mlp_unit is not None:
        if mlp_unit <= 0 or mlp_unit % 8 or shape.intermediate % mlp_unit:
            raise SettingsError(
                f"an MLP unit of {mlp_unit} channels does not fit: it must be a multiple of 8"
                f" that divides the intermediate size {shape.intermediate}"
            )
        return mlp_unit
    preferred = 128 if shape.hidden >= 2048 else 32
    for unit in range(preferred, 0, -8):
        if shape.intermediate % unit == 0:
            return unit
    raise SettingsError(
        f"the intermediate size {shape.intermediate} is not divisible by 8: its channels cannot be cut into MLP units"
    )


def space_of(
    model: nn.Module, mlp_unit: int | None = None, compensation_bias: bool = False, attention_unit: int = 1
) -> Space:
    """The space of profiles of a dense `model`, its parameter counts read from the modules' shapes.

    Rows of the q, k, v, gate and up projections belong to units with their biases, and so do the columns of o_proj and
    down_proj; the biases of o_proj and down_proj, norms, embeddings and head are fixed.

    Args:
        model: a causal LM of a supported family.
        mlp_unit: channels in an MLP unit; None for the default of `mlp_unit_of`.
        compensation_bias: whether bias compensation adds a bias to every o_proj and down_proj that has none.
        attention_unit: KV groups in an attention unit.

    Raises:
        SettingsError: when the MLP unit or the attention unit does not fit the model.
    """
    shape = geometry(model.config)
    unit = mlp_unit_of(shape, mlp_unit)
    if attention_unit < 1 or shape.n_groups % attention_unit:
        raise SettingsError(
            f"an attention unit of {attention_unit} KV groups does not fit: it must divide the {shape.n_groups} of a "
            "layer"
        )
    n_groups = shape.n_groups // attention_unit
    layer = next(decoder_layers(model))
    attention, mlp = layer.self_attn, layer.mlp
    group_params = shape.group_width * (_row_params(attention.q_proj) + attention.o_proj.out_features)
    group_params += shape.head_dim * (_row_params(attention.k_proj) + _row_params(attention.v_proj))
    group_params *= attention_unit
    block_params = unit * (_row_params(mlp.gate_proj) + _row_params(mlp.up_proj) + mlp.down_proj.out_features)
    n_blocks = shape.intermediate // unit
    total = sum(parameter.numel() for parameter in model.parameters())  # tied weights are listed once
    fixed = total - shape.n_layers * (n_groups * group_params + n_blocks * block_params)
    added = 0
    if compensation_bias:
        outputs = (attention.o_proj, mlp.down_proj)
        added = shape.n_layers * sum(one.out_features for one in outputs if one.bias is None)
    return Space(
        shape.n_layers, n_groups, n_blocks, group_params, block_params, fixed + added, unit, attention_unit, added
    )


def decoder_layers(model: nn.Module) -> Iterator[Any]:
    """The decoder layers of a causal LM of a supported family, first to last."""
    layers: Any = model.get_submodule("model.layers")
    yield from layers


def _row_params(projection: nn.Linear) -> int:
    """Parameters of one output row of a linear layer, its bias included."""
    return projection.in_features + (projection.bias is not None)
