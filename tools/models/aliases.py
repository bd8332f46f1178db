"""Short names of well-known models: the one table that maps them to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from self_pruner.memory.errors import ModelError, meant
from self_pruner.memory.paths import expanded

BUNDLED = "smollm2-135m"  # comes as a package, so it needs no hub

ALIASES: dict[str, str] = {
    "llama-7b": "huggyllama/llama-7b",
    "llama-13b": "huggyllama/llama-13b",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-2-70b": "meta-llama/Llama-2-70b-hf",
    "llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama-2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
    "llama-2-70b-chat": "meta-llama/Llama-2-70b-chat-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3-70b": "meta-llama/Meta-Llama-3-70B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Llama-3.1-70B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.1-70b-instruct": "meta-llama/Llama-3.1-70B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "llama-3.3-70b-instruct": "meta-llama/Llama-3.3-70B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "mistral-7b-v0.3": "mistralai/Mistral-7B-v0.3",
    "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.3",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B",
    "qwen2.5-32b": "Qwen/Qwen2.5-32B",
    "qwen2.5-72b": "Qwen/Qwen2.5-72B",
    "qwen2.5-0.5b-instruct": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2.5-1.5b-instruct": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2.5-7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}


def names() -> list[str]:
    """All short names, the bundled model's first."""
    return [BUNDLED, *ALIASES]


def anchored(name: str, base: Path) -> str:
    """A model's name as it is understood from any folder: one of a folder in `base` made absolute, unless an alias."""
    folder = base / expanded(name)
    return str(folder.resolve()) if name.lower() not in names() and folder.is_dir() else name


# Published shapes of all of them, so that what a run costs and how fast shapes are is known without a hub.


def _shape(
    family: str, hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocab: int, **more: Any
) -> dict[str, Any]:
    """The fields of a config.json that sizes follow from; `more` are those that its family does not have by default."""
    model_type = family.lower()
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
    }
    named = {"model_type": model_type, "architectures": [f"{family}ForCausalLM"], "hidden_act": "silu"}
    contexts = {"llama": 8192, "mistral": 32768, "qwen2": 32768, "qwen3": 40960}
    return {**named, "max_position_embeddings": contexts[model_type], "rms_norm_eps": 1e-5, **sizes, **more}


_TIED = {"tie_word_embeddings": True}
_LONG = {"max_position_embeddings": 131_072}
_LLAMA_1, _LLAMA_2 = {"max_position_embeddings": 2048}, {"max_position_embeddings": 4096}
_LLAMA_7B, _LLAMA_13B = (4096, 32, 32, 32, 11008, 32000), (5120, 40, 40, 40, 13824, 32000)
_LLAMA_3_8B, _LLAMA_3_70B = (4096, 32, 32, 8, 14336, 128_256), (8192, 80, 64, 8, 28672, 128_256)
_LLAMA_2_70B = _shape("Llama", 8192, 80, 64, 8, 28672, 32000, **_LLAMA_2)
_MISTRAL_3 = _shape("Mistral", 4096, 32, 32, 8, 14336, 32768, sliding_window=None)
_QWEN_05B = _shape("Qwen2", 896, 24, 14, 2, 4864, 151_936, **_TIED)
_QWEN_15B = _shape("Qwen2", 1536, 28, 12, 2, 8960, 151_936, **_TIED)
_QWEN_7B = _shape("Qwen2", 3584, 28, 28, 4, 18944, 152_064)


def _qwen3(hidden: int, layers: int, heads: int, intermediate: int, **more: Any) -> dict[str, Any]:
    return _shape("Qwen3", hidden, layers, heads, 8, intermediate, 151_936, head_dim=128, **more)


PUBLISHED: dict[str, dict[str, Any]] = {  # by alias, as in config.json; contexts are those or shorter ones
    "llama-7b": _shape("Llama", *_LLAMA_7B, **_LLAMA_1),
    "llama-13b": _shape("Llama", *_LLAMA_13B, **_LLAMA_1),
    "llama-2-7b": _shape("Llama", *_LLAMA_7B, **_LLAMA_2),
    "llama-2-13b": _shape("Llama", *_LLAMA_13B, **_LLAMA_2),
    "llama-2-70b": _LLAMA_2_70B,
    "llama-2-7b-chat": _shape("Llama", *_LLAMA_7B, **_LLAMA_2),
    "llama-2-13b-chat": _shape("Llama", *_LLAMA_13B, **_LLAMA_2),
    "llama-2-70b-chat": _LLAMA_2_70B,
    "llama-3-8b": _shape("Llama", *_LLAMA_3_8B),
    "llama-3-70b": _shape("Llama", *_LLAMA_3_70B),
    "llama-3.1-8b": _shape("Llama", *_LLAMA_3_8B, **_LONG),
    "llama-3.1-70b": _shape("Llama", *_LLAMA_3_70B, **_LONG),
    "llama-3.1-8b-instruct": _shape("Llama", *_LLAMA_3_8B, **_LONG),
    "llama-3.1-70b-instruct": _shape("Llama", *_LLAMA_3_70B, **_LONG),
    "llama-3.2-1b": _shape("Llama", 2048, 16, 32, 8, 8192, 128_256, **_LONG, **_TIED, head_dim=64),
    "llama-3.2-3b": _shape("Llama", 3072, 28, 24, 8, 8192, 128_256, **_LONG, **_TIED, head_dim=128),
    "llama-3.3-70b-instruct": _shape("Llama", *_LLAMA_3_70B, **_LONG),
    "mistral-7b": _shape("Mistral", 4096, 32, 32, 8, 14336, 32000, sliding_window=4096),
    "mistral-7b-v0.3": _MISTRAL_3,
    "mistral-7b-instruct": _MISTRAL_3,
    "qwen2.5-0.5b": _QWEN_05B,
    "qwen2.5-1.5b": _QWEN_15B,
    "qwen2.5-3b": _shape("Qwen2", 2048, 36, 16, 2, 11008, 151_936, **_TIED),
    "qwen2.5-7b": _QWEN_7B,
    "qwen2.5-14b": _shape("Qwen2", 5120, 48, 40, 8, 13824, 152_064),
    "qwen2.5-32b": _shape("Qwen2", 5120, 64, 40, 8, 27648, 152_064),
    "qwen2.5-72b": _shape("Qwen2", 8192, 80, 64, 8, 29568, 152_064),
    "qwen2.5-0.5b-instruct": _QWEN_05B,
    "qwen2.5-1.5b-instruct": _QWEN_15B,
    "qwen2.5-7b-instruct": _QWEN_7B,
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, **_TIED),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, **_TIED),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728, **_TIED),
    "qwen3-8b": _qwen3(4096, 36, 32, 12288),
    "qwen3-14b": _qwen3(5120, 40, 40, 17408),
    "qwen3-32b": _qwen3(5120, 64, 64, 25600),
    "smollm2-360m": _shape("Llama", 960, 32, 15, 5, 2560, 49_152, **_TIED),
    "smollm2-1.7b": _shape("Llama", 2048, 24, 32, 32, 8192, 49_152, **_TIED),
}


def unknown(name: str, folder: Path) -> ModelError:
    """The error for a name that stands for nothing, with what was probably meant."""
    allowed = "give an alias, a folder or a hub id (org/name)"
    if folder.is_file():
        return ModelError(f"{name!r} is a file; {allowed}: a folder holds config.json, safetensors and a tokenizer")
    if name.startswith((".", "/", "~")):
        return ModelError(f"the folder {name!r} does not exist; {allowed}")
    guess = meant(name.lower(), names(), 4, likeness=0.5) or f"known aliases: {', '.join(names())}"
    return ModelError(f"unknown model {name!r}; {allowed}; {guess}")
