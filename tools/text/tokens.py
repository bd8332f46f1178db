"""From documents to the token matrix that calibration and evaluation read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from self_pruner.memory.errors import TextError
from self_pruner.tools.text import split

BATCH = 64  # documents tokenised at a time, at the most
CHARACTERS = 8  # of a token, at the most in most texts: about as many documents are tokenised as are needed
BEYOND = 512  # tokens of a head that are left over: those before a cut may be others than without it


def sequences(
    documents: Sequence[str], tokenizer: Any, n: int, length: int, name: str = "the text", least: int | None = None
) -> torch.Tensor:
    """The first `n * length` tokens of the documents, each document followed by EOS, cut into consecutive rows.

    No other special token is added; a tokenizer without EOS separates documents by a blank line. Only as many
    documents are tokenised as are needed, and of a far longer one only a head.

    Args:
        documents: the text, in the order it is to be read.
        tokenizer: a transformers tokenizer.
        n: sequences wanted.
        length: tokens a sequence.
        name: what the error calls the text.
        least: fewer sequences are taken where the text has no more, this many at the least (default `n`).

    Returns:
        int64 tensor of shape [n, length], or of fewer rows.

    Raises:
        TextError: when the documents have fewer than `least * length` tokens; says how many there are.
    """
    if n < 1 or length < 1:
        raise ValueError(f"n and length must be positive, got {n} and {length}")
    needed = n * length
    end = _separator(tokenizer)
    tokens: list[int] = []
    read = 0
    while read < len(documents):
        missing = needed - len(tokens)
        batch = _next_batch(documents[read : read + BATCH], CHARACTERS * missing)
        read += len(batch)
        size = CHARACTERS * (missing + BEYOND)
        for document, ids in zip(batch, _tokenised([_head(each, size) for each in batch], tokenizer), strict=True):
            tokens += _first(document, size, ids, needed - len(tokens), tokenizer)
            tokens += end
        if len(tokens) >= needed:
            return torch.tensor(tokens[:needed], dtype=torch.int64).view(n, length)
    whole = len(tokens) // length
    least = n if least is None else least
    if whole >= max(1, least):
        return torch.tensor(tokens[: whole * length], dtype=torch.int64).view(whole, length)
    raise TextError(
        f"{name} is too short: it has {len(tokens):,} tokens, "
        f"and {least:,} sequences of {length:,} need {least * length:,}"
    )


def _next_batch(documents: Sequence[str], characters: int) -> list[str]:
    """The first documents that have so many characters together; one at the least, all if they have fewer."""
    batch: list[str] = []
    for document in documents:
        if batch and characters <= 0:
            break
        batch.append(document)
        characters -= len(document)
    return batch


def _head(document: str, characters: int) -> str:
    """The document, or the first `characters` of it and the rest of their word where it is over twice as long."""
    if len(document) <= 2 * characters:
        return document
    return document[: split.next_space(document, characters)]


def _first(document: str, size: int, ids: list[int], missing: int, tokenizer: Any) -> list[int]:
    """All tokens of a document, given the `ids` of its head of `size` characters; of a longer one the `missing` first.

    The head is doubled where it has too few.
    """
    while len(_head(document, size)) < len(document):
        if len(ids) >= missing + BEYOND:
            return ids[:missing]
        size *= 2
        (ids,) = _tokenised([_head(document, size)], tokenizer)
    return ids


def _tokenised(texts: list[str], tokenizer: Any) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])


def _separator(tokenizer: Any) -> list[int]:
    """The tokens between documents."""
    if tokenizer.eos_token_id is not None:
        return [tokenizer.eos_token_id]
    return list(tokenizer("\n\n", add_special_tokens=False)["input_ids"])
