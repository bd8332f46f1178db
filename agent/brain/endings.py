"""How a reply ends in time: a short way from where a grammar stands to where it may end.

A model that is in the middle of an open string when its tokens run out would leave half a call behind. So from `WATCH`
tokens before the limit on, a token is said only where the reply can still be ended after it. Where it can't, the reply
is ended from where it is, and the model is asked no more. A reply that ends by itself is what it would be without this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from llguidance import LLTokenizer
from numpy.typing import NDArray

from self_pruner.agent.brain.grammar import GrammarConstraint

WATCH = 512  # tokens before the limit; a longer ending is known too late, and such a reply may be cut

# Kinds of tokens. In a text brackets close nothing; outside of one a quote opens one.
KINDS = END, LINE, QUOTE, BRACKET, EMPTY, COMMA, DIGIT, LETTERS, OTHER, OPENING = range(10)
IN_TEXT = (END, LINE, QUOTE, LETTERS, OTHER, DIGIT, COMMA, BRACKET, EMPTY, OPENING)  # the most helpful first
OUTSIDE = (END, LINE, BRACKET, EMPTY, COMMA, QUOTE, DIGIT, LETTERS, OTHER, OPENING)
CONTENT = (DIGIT, LETTERS, OTHER)
LARGEST = 1000  # a token has fewer bytes, or is counted as if
AGAIN = 2 * LARGEST  # what one more of a kind of content costs: a pattern that wants an @ after its letters gets one


@dataclass(frozen=True, slots=True)
class _Alphabet:
    """Tokens as endings see them, [vocab] each."""

    kinds: NDArray[np.int64]
    in_text: NDArray[np.int64]  # how little a token helps to end a reply in a text: the least is said
    outside: NDArray[np.int64]
    space: int  # the token of a space; -1 without


def ending(constraint: GrammarConstraint, most: int) -> list[int] | None:
    """Tokens that end the reply from where `constraint` stands, which stays there; None where more than `most` would.

    Strings, lists and objects are closed as soon as they may be, and a choice is made for what opens nothing. A token
    that ends a text is the last one where the grammar needs it.
    """
    walker = constraint.copy()
    alphabet = _alphabet(walker.tokenizer)
    penalties = np.zeros(len(KINDS), np.int64)
    said: list[int] = []
    while not walker.done:
        if tokens := walker.forced():
            penalties[:] = 0
        else:
            legal = walker.allowed()
            # a space is legal in texts alone, and but for their first character
            in_text = alphabet.space in legal or len(legal) > len(alphabet.kinds) // 8
            costs = (alphabet.in_text if in_text else alphabet.outside)[legal] + penalties[alphabet.kinds[legal]]
            tokens = [int(legal[costs.argmin()])]
            kind = alphabet.kinds[tokens[0]]
            if kind in CONTENT:
                penalties[kind] += AGAIN
            else:
                penalties[:] = 0
        said += tokens
        if len(said) > most:
            return None
        walker.accept(tokens)
    return said


@lru_cache(maxsize=8)
def _alphabet(tokenizer: LLTokenizer) -> _Alphabet:
    pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
    kinds = np.array([_kind(piece) for piece in pieces], np.int64)
    kinds[tokenizer.eos_tokens] = END
    sizes = np.array([min(len(piece), LARGEST - 1) for piece in pieces], np.int64)
    whole = (kinds == BRACKET) | (kinds == LETTERS)  # as much as can be at once
    in_text = LARGEST * np.argsort(IN_TEXT)[kinds] + np.where(whole | (kinds == QUOTE), LARGEST - sizes, sizes)
    outside = LARGEST * np.argsort(OUTSIDE)[kinds] + np.where(whole, LARGEST - sizes, sizes)
    return _Alphabet(kinds, in_text, outside, pieces.index(b" ") if b" " in pieces else -1)


def _kind(piece: bytes) -> int:
    if piece == b"\n":  # ends a thought; no string holds one
        return LINE
    if piece and not piece.strip(b'"]}'):
        return QUOTE if piece.startswith(b'"') else BRACKET
    if piece in (b"[]", b"{}"):
        return EMPTY
    if piece == b",":  # a list that needs more elements; else its number would go on
        return COMMA
    if piece.isdigit():
        return DIGIT
    if piece.isalpha():
        return LETTERS
    return OPENING if set(b"[{:,") & set(piece) else OTHER
