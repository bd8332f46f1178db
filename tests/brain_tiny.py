"""A tokenizer of 380 tokens for the tiny models of 512 logits: byte-level, with merges as they occur in tool calls."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.schema import sample_call
from tests.brain_schemas import ALL, parameters
from tests.tiny import tiny_model

PAGE = [SystemMessage("You prune yourself."), HumanMessage("What now?")]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on sampled calls, with SmolLM2's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)
    lines = []
    for _ in range(60):
        tool = rng.choice(ALL)
        call = {"name": tool["function"]["name"], "arguments": sample_call(parameters(tool), rng)}
        lines.append("cut the middle layers first\n" + json.dumps(call, separators=(",", ":")))
    backend.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        bos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


@functools.cache
def llama2_like_tokenizer() -> PreTrainedTokenizerFast:
    """BPE in Llama 2's manner: spaces as \u2581, one put before the text, unknown characters as bytes; no template."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "\u2581", *letters]
    merges = [("n", "a"), ("na", "m"), ("nam", "e"), ('"', ":"), ('":', '"'), ("\u2581", "c"), ("}", "}")]
    pieces += [left + right for left, right in merges]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tiny_brain(family: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> TargetBrain:
    """The target model's brain on a tiny random model."""
    return TargetBrain(model=tiny_model(family), tokenizer=tokenizer or tiny_tokenizer(), **settings)
