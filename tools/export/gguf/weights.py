"""The model that a GGUF file is made from: cut from an elastic model, or read from an exported folder.

Both give the same tensors in the same order, so the file is the same whichever it is made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.models.checkpoint import check_files, read_config, whole_shards
from self_pruner.tools.models.claims import senseless
from self_pruner.tools.models.families import FAMILIES, Geometry, geometry
from self_pruner.tools.models.foreign_code import CLASS_STEMS, is_ours
from self_pruner.tools.models.quiet import quiet
from self_pruner.tools.models.source import SENSELESS
from self_pruner.tools.models.tensor_files import TensorFiles
from self_pruner.tools.pruning.smaller_model import smaller_outline, smaller_tensors

if TYPE_CHECKING:
    from self_pruner.tools.pruning.elastic import ElasticModel


@dataclass(frozen=True, slots=True)
class PrunedWeights:
    """A pruned model without its modules."""

    config: Any  # of transformers; its widths may be the dense model's
    shape: Geometry  # of the dense model
    sizes: Sequence[tuple[int, int]]  # KV groups and MLP channels of every layer
    outline: Mapping[str, Tensor]  # on the meta device, by the names of transformers; a tied head is left out
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]  # in the order of `outline`, made or read one at a time

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(iter(self.outline.values())).dtype

    def in_gguf(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Names of GGUF and tensors in llama.cpp's order of rows, of what `tensors` or `outline` has."""
        import gguf

        if (factors := rope_factors(self.config)) is not None:
            yield "rope_freqs.weight", factors
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DECI, self.shape.n_layers)
        for key, tensor in tensors:
            if ".q_proj." in key or ".k_proj." in key:
                groups, _ = self.sizes[int(key.split(".")[2])]  # model.layers.N
                tensor = interleaved(tensor, groups * (self.shape.heads_per_group if ".q_proj." in key else 1))
            module, _, kind = key.rpartition(".")
            yield f"{names[module]}.{kind}", tensor


def cut(elastic: ElasticModel, profile: Profile) -> PrunedWeights:
    """What `profile` cuts from `elastic`, with its compensation."""
    config, sizes = elastic.model.config, elastic.space.sizes(profile)
    outline = smaller_outline(elastic, profile)
    return PrunedWeights(config, geometry(config), sizes, outline, lambda: smaller_tensors(elastic, profile))


def read(folder: Path) -> PrunedWeights:
    """What an export wrote to `folder`, once its tensors are known to be those of its config. None of its code runs.

    Raises:
        ModelError: no config.json, one that describes no model, or no weights.
        ModelError: weights in pickle files only.
        ModelError: a truncated or damaged safetensors file, or tensors that are not those of the config.
    """
    check_files(folder)
    fields = read_config(folder / "config.json")
    files = TensorFiles(whole_shards(folder))
    config, shapes = _described(fields, folder)
    for name in sorted(shapes.keys() | files.stored.keys()):
        if name not in shapes or name not in files.stored or files.stored[name].shape != shapes[name]:
            raise ModelError(f"the checkpoint in {str(folder)!r} has tensors that do not fit its config: {name}")
    layers = getattr(config, "per_layer_config", None) or {}
    sizes = [
        (one.num_key_value_heads, one.intermediate_size)
        for one in (layers[index] if layers else config for index in range(config.num_hidden_layers))
    ]
    with quiet():  # the widths of the dense model are asked for, and transformers warns of that
        shape = geometry(config)
    outline = {name: torch.empty(shapes[name], dtype=files.stored[name].dtype, device="meta") for name in shapes}
    return PrunedWeights(config, shape, sizes, outline, lambda: ((name, files.read(name)) for name in shapes))


def _described(fields: dict[str, Any], folder: Path) -> tuple[Any, dict[str, torch.Size]]:
    """The config, and the shapes of the tensors it asks for, in the order of an elastic model's."""
    import transformers

    from self_pruner.tools.export import modeling_self_pruner

    family = FAMILIES.get(str(fields.get("model_type")))
    fault = "its model_type is of no supported family" if family is None else senseless(fields)
    if family is None or fault:
        raise ModelError(f"the config.json of {str(folder)!r} describes no model: {fault}")
    try:
        with quiet(), torch.device("meta"):
            if is_ours(fields):
                stem = CLASS_STEMS[family.model_type]
                config = getattr(modeling_self_pruner, f"{stem}Config")(**fields)
                model = getattr(modeling_self_pruner, f"{stem}ForCausalLM")(config)
            else:
                config = transformers.AutoConfig.for_model(**fields)
                model = getattr(transformers, family.architecture)(config)
            geometry(config)  # asked for here, where a config that keeps it to itself is a sentence
    except (*SENSELESS, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"the config.json of {str(folder)!r} describes no model: {reason}") from error
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight")
    # biases that compensation added come last, as an elastic model adds them
    own = {"o_proj": getattr(config, "attention_bias", False), "down_proj": getattr(config, "mlp_bias", False)}
    added = [name for name in shapes if name.endswith(".bias") and not own.get(name.split(".")[-2], True)]
    return config, {name: shapes[name] for name in [*(name for name in shapes if name not in added), *added]}


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows [heads * head_dim, ...] with the two halves of every head interleaved.

    transformers turns row i of a head together with row i + head_dim / 2, llama.cpp rows 2i and 2i + 1.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def rope_factors(config: Any) -> Tensor | None:
    """By what each frequency [head_dim / 2] is divided, float32; None where they are not scaled."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        return None
    scaled = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))[0].double()
    exponents = torch.arange(len(scaled), dtype=torch.float64) / len(scaled)
    return (config.rope_parameters["rope_theta"] ** -exponents / scaled).float()
