"""A tokenizer as GGUF states it: its tokens, their kinds, merges, special tokens and chat template.

llama.cpp splits text with rules of its own that a name stands for, so the name must be that of the very rules in the
tokenizer's `tokenizer.json`. They are recognised by their form; a form that has no name there is refused, because a
tokenizer that is nearly right makes a model that is quietly worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from self_pruner.memory.errors import ExportError
from self_pruner.memory.partials import scratch

if TYPE_CHECKING:
    from gguf import GGUFWriter

BYTE_TOKENS = 256  # of a tokenizer that falls back to bytes
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {  # by the regular expression: what llama.cpp calls it
    _LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _LETTERS + r"\p{N}" + _REST: "qwen2",
}


def split_rules(definition: dict[str, Any]) -> str:
    """What llama.cpp calls the rules of a byte-level tokenizer; `llama` for SentencePiece's.

    Args:
        definition: the contents of a `tokenizer.json`.

    Raises:
        ExportError: it has no name for them.
    """
    model = definition["model"]
    if model.get("type") != "BPE":
        raise ExportError(f"llama.cpp is given BPE tokenizers alone, and this one is {model.get('type')}")
    if model.get("byte_fallback"):
        return "llama"
    steps = definition.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        name = _SPLITS.get(steps[0].get("pattern", {}).get("Regex"))
        if name is not None and steps[0].get("behavior") == "Isolated":
            return name
    raise ExportError(
        "llama.cpp has no name that is known here for how this tokenizer splits text "
        f"({', '.join(map(str, kinds)) or 'not at all'}); known are gpt-2, smollm, llama-bpe, qwen2 and SentencePiece"
    )


def tokenizer_definition(tokenizer: Any) -> dict[str, Any]:
    """What its `tokenizer.json` holds.

    Raises:
        ExportError: it has none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError("this tokenizer has no tokenizer.json, from which GGUF's is made")
    definition: dict[str, Any] = json.loads(backend.to_str())
    return definition


def add_tokenizer(writer: GGUFWriter, tokenizer: Any, vocab_size: int) -> None:
    """Write a tokenizer's part of a GGUF file.

    Args:
        writer: of the file.
        tokenizer: a fast tokenizer of transformers; None for a file of token ids alone.
        vocab_size: rows of the embedding; those without a token become unused ones.

    Raises:
        ExportError: llama.cpp has no rules for it.
    """
    import gguf

    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    definition = tokenizer_definition(tokenizer)
    rules = split_rules(definition)
    vocab: dict[str, int] = definition["model"]["vocab"]
    for text, token in (*vocab.items(), *((added["content"], added["id"]) for added in definition["added_tokens"])):
        if token >= vocab_size:
            raise ExportError(
                f"the tokenizer's {text!r} is token {token}, and the model knows {vocab_size}: "
                "llama.cpp takes no token that the model does not know"
            )
    texts: list[str] = [f"[PAD{token}]" for token in range(vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * vocab_size
    for text, token in vocab.items():
        texts[token], kinds[token] = text, gguf.TokenType.NORMAL
    for added in definition["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    if rules == "llama":
        _add_sentencepiece(writer, definition, texts, kinds)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(rules)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    with scratch("tokenizer") as folder:
        tokenizer.save_pretrained(folder)
        special = gguf.SpecialVocab(Path(folder), load_merges=rules != "llama", n_vocab=vocab_size)
    # Asked of the tokenizer itself: what it really does need not be what its settings say.
    ids = tokenizer("a").input_ids
    special.add_special_token = {
        "bos": tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id,
    }
    special.add_to_gguf(writer, quiet=True)


def _add_sentencepiece(writer: GGUFWriter, definition: dict[str, Any], texts: list[str], kinds: list[Any]) -> None:
    """SentencePiece's part: byte tokens, and scores in whose order llama.cpp merges, here the order of the merges."""
    import gguf

    scores = [-1e6] * len(texts)
    vocab = definition["model"]["vocab"]
    for rank, merge in enumerate(definition["model"]["merges"]):
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        token = vocab[left + right]
        scores[token] = max(scores[token], -float(rank))
    for byte in range(BYTE_TOKENS):
        token = vocab.get(f"<0x{byte:02X}>")
        if token is None:
            raise ExportError(f"this tokenizer falls back to bytes but has no token <0x{byte:02X}>")
        kinds[token] = gguf.TokenType.BYTE
    unknown = definition["model"].get("unk_token")
    if unknown in vocab:
        kinds[vocab[unknown]] = gguf.TokenType.UNKNOWN
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(_prepends_space(definition))
    writer.add_token_scores(scores)


def _prepends_space(definition: dict[str, Any]) -> bool:
    """Whether a text is read as if a space came before it."""
    normalizer = definition.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    splitter = definition.get("pre_tokenizer") or {}
    return splitter.get("type") == "Metaspace" and splitter.get("prepend_scheme", "always") != "never"
