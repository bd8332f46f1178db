"""Published shapes of well-known models, so that their speed can be measured without a hub and without weights."""

from __future__ import annotations

from typing import Any

_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5}


def _llama(
    hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocab: int, context: int = 4096
) -> dict[str, Any]:
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }
    return {**_LLAMA, **sizes}


PUBLISHED: dict[str, dict[str, Any]] = {  # by alias, as in config.json
    "llama-2-7b": _llama(4096, 32, 32, 32, 11008, 32000),
    "llama-2-13b": _llama(5120, 40, 40, 40, 13824, 32000),
    "llama-2-70b": _llama(8192, 80, 64, 8, 28672, 32000),
    "llama-3-8b": _llama(4096, 32, 32, 8, 14336, 128256, context=8192),
    "llama-3-70b": _llama(8192, 80, 64, 8, 28672, 128256, context=8192),
}
