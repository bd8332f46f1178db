"""Tiny random models for tests of logic: every family, grouped-query or multi-head attention."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

MLP_UNIT = 8  # 12 blocks of the 96 intermediate channels
FAMILY_NAMES = ("llama", "mistral", "qwen2", "qwen3")


def tiny_config(family: str, mha: bool = False, tied: bool = False, **overrides: Any) -> Any:
    """A config of 3 layers, hidden 64, 4 KV groups of two query heads (one if `mha`) of 16, 96 channels, vocab 512."""
    settings: dict[str, Any] = dict(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4 if mha else 8,
        num_key_value_heads=4,
        head_dim=16,
        intermediate_size=96,
        vocab_size=512,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    if family == "mistral":
        settings["sliding_window"] = None
    config = AutoConfig.for_model(family, **(settings | overrides))
    config._attn_implementation = "sdpa"
    return config


def tiny_model(
    family: str,
    mha: bool = False,
    seed: int = 0,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> PreTrainedModel:
    """A random model in eval mode without gradients; its biases and norms are not trivial, its outputs not flat."""
    model = AutoModelForCausalLM.from_config(tiny_config(family, mha, tied, **overrides), attn_implementation="sdpa")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(noise * (0.25 if tied else 1.0))
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    return model.to(dtype).eval().requires_grad_(False)


@functools.cache
def bundled_tokenizer(words: int | None = None) -> Any:
    """The bundled model's tokenizer, or its first `words` tokens: with fewer, all that counts them is faster."""
    from transformers import AutoTokenizer

    from self_pruner.tools.models.bundled import bundled_model

    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    if words is not None:
        definition = json.loads(tokenizer.backend_tokenizer.to_str())
        model = definition["model"]  # the tokens are numbered in the order of their merges
        model["vocab"] = {text: token for text, token in model["vocab"].items() if token < words}
        model["merges"] = [merge for merge in model["merges"] if "".join(merge) in model["vocab"]]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(definition))
    return tokenizer


def tiny_folder(
    path: Path,
    family: str = "llama",
    tokenizer: bool = True,
    mha: bool = False,
    seed: int = 0,
    words: int | None = 4096,
    **overrides: Any,
) -> Path:
    """Saves a tiny model to `path`; with `tokenizer`, that of `bundled_tokenizer`, and a vocabulary to match.

    With the bundled tokenizer's 49,152 words (None) a run of it takes three times as long, most of it in the head.
    """
    from self_pruner.tools.models.quiet import quiet

    path = Path(path)
    with quiet():
        if not tokenizer:
            tiny_model(family, mha, seed, **overrides).save_pretrained(path)
            return path
        real = bundled_tokenizer(words)
        ends = dict(bos_token_id=real.bos_token_id, eos_token_id=real.eos_token_id)
        tiny_model(family, mha, seed, tied=True, vocab_size=len(real), **ends, **overrides).save_pretrained(path)
        real.save_pretrained(path)
    return path
