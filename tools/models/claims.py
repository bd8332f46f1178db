"""What a config.json claims, held against what any model has and against the tensors that are there.

transformers makes the model that the config describes and then looks for its weights. So memory would be taken for
whatever a config says, and one that says less than there is would make a smaller model out of part of the weights,
without a word. Both are found here, from names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any

# The largest that anything known comes near of, so that a model without weights is built in seconds.
LARGEST = {
    "num_hidden_layers": 1000,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "num_attention_heads": 1 << 12,
    "vocab_size": 1 << 23,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 13,
    "max_position_embeddings": 1 << 31,
}
REQUIRED = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
COMPUTED = "rotary_emb.inv_freq"  # stored by older conversions, and made from the config by every reader
LAYER = re.compile(r"layers\.(\d{1,9})\.(.+)")

_short = Repr()
_short.maxstring = _short.maxother = 60


def shown(value: object) -> str:
    """A value out of somebody else's file, in few characters."""
    return _short.repr(value)


def senseless(config: Mapping[str, Any]) -> str | None:
    """Why the sizes in a config make no model, in words; None where they do."""
    for name, largest in LARGEST.items():
        size = config.get(name)
        if size is None and name not in REQUIRED:
            continue
        if name not in config:
            return f"it has no {name}"
        if type(size) is not int or not 1 <= size <= largest:
            return f"{name} must be a whole number from 1 to {largest:,}, it is {shown(size)}"
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads") or 1
    if heads % groups:
        return f"the {heads} of num_attention_heads cannot share the {groups} of num_key_value_heads equally"
    return None


def contradiction(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> str | None:
    """How the weights differ from what a sensible config says, in words; None where they do not.

    Args:
        config: of a supported family, not `senseless`.
        shapes: of all tensors, by name.
    """
    names = {name.removeprefix("model."): name for name in shapes}
    layers = {int(match[1]) for match in map(LAYER.match, names) if match}
    claimed, found = config["num_hidden_layers"], max(layers, default=-1) + 1
    if found > claimed:
        return f"has {found} layers, and its config.json says {claimed}"
    outside, inside = _expected(config)
    needed = [name for name in outside if name != "lm_head.weight"]  # which may be that of the embeddings
    needed += [f"layers.{layer}.{name}" for layer in range(claimed) for name in inside]
    for name in needed:
        if name not in names:
            return f"lacks the tensor {'model.' + name!r}"
    undeclared = []
    for plain, name in names.items():
        match = LAYER.match(plain)
        expected = inside.get(match[2]) if match else outside.get(plain)
        if expected is None:
            undeclared += [] if plain.endswith(COMPUTED) else [name]
        elif None not in expected and tuple(shapes[name]) != expected:
            found_shape = shown(list(shapes[name]))
            return f"has the wrong shape for {name!r}: {found_shape}, and its config.json says {list(expected)}"
    if undeclared:  # transformers would leave them out in silence
        some = ", ".join(map(shown, sorted(undeclared)[:3]))
        return f"holds what no model of its config.json has, {len(undeclared):,} in all: {some}"
    return None


_Shape = tuple[int | None, ...]


def _expected(config: Mapping[str, Any]) -> tuple[dict[str, _Shape], dict[str, _Shape]]:
    """The shapes of tensors outside and inside of a layer; None for a size that the family decides."""
    hidden, channels, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, head = config["num_attention_heads"], config.get("head_dim")
    groups = config.get("num_key_value_heads")
    if config.get("model_type") == "llama":  # the others put numbers of their own in the place of none
        groups, head = groups or heads, head or hidden // heads
    queries = None if head is None else heads * head
    keys = None if head is None or groups is None else groups * head
    inside: dict[str, _Shape] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (channels, hidden),
        "mlp.up_proj.weight": (channels, hidden),
        "mlp.down_proj.weight": (hidden, channels),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    inside |= {f"{name}.bias": inside[f"{name}.weight"][:1] for name in _biased(config)}
    if config.get("model_type") == "qwen3":
        inside |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    outside: dict[str, _Shape] = {
        "embed_tokens.weight": (vocab, hidden),
        "norm.weight": (hidden,),
        "lm_head.weight": (vocab, hidden),
    }
    return outside, inside


def _biased(config: Mapping[str, Any]) -> list[str]:
    """The projections of a layer that have biases."""
    family = config.get("model_type")
    attention, mlp = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], []
    if family != "qwen2":
        attention = [*attention, "self_attn.o_proj"] if family != "mistral" and config.get("attention_bias") else []
    if family == "llama" and config.get("mlp_bias"):
        mlp = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    return attention + mlp
