r"""What may be said next: the legal calls as a grammar over tokens.

A reply is one line of thought, a newline, and one compact JSON object:

    cut the middle layers first
    {"name":"prune_model","arguments":{"operator":"mutation", ...}}

llguidance turns that grammar into a mask over the vocabulary at every step and, where only one continuation exists,
into forced tokens: braces, field names and constants are never decided, so they need not be sampled.
Free text (the thought, strings without an enum) holds no control characters, and strings hold no quotes or backslashes
either: an escape could otherwise smuggle in a newline or half of a surrogate pair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from self_pruner.agent.brain.calls import CallSchema, reply_schema
from self_pruner.agent.brain.schema import rewritten
from self_pruner.memory.errors import BrainError

CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
THOUGHT = rf"[^\x20{CONTROL}][^{CONTROL}]*"
TEXT = r"[^\x00-\x20\x7f-\x9f\u2028\u2029]([^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029])*"


def call_grammar(calls: Sequence[CallSchema], thought_tokens: int) -> str:
    """The grammar of a reply: a thought of at most `thought_tokens` tokens (none for 0), then one of the calls."""
    schema = {**printable(reply_schema(calls)), "x-guidance": {"whitespace_flexible": False}}
    call_rule = f"call: %json {json.dumps(schema)}\n"
    if thought_tokens == 0:
        return "start: call\n" + call_rule
    return f'start: thought "\\n" call\nthought[max_tokens={thought_tokens}]: /{THOUGHT}/\n' + call_rule


def text_grammar() -> str:
    """The grammar of a reply without a call: any printable text, its lines too, that the model ends itself."""
    return f"start: /{TEXT}/\n"


def printable(schema: Any) -> Any:
    """The schema with free strings kept to printable text."""

    def kept(one: dict[str, Any]) -> dict[str, Any]:
        if one.get("type") == "string" and not {"enum", "pattern", "format"} & set(one):
            low, high = one.pop("minLength", 0), one.pop("maxLength", "")
            one["pattern"] = rf'^[^"\\{CONTROL}]{{{low},{high}}}$'
        return one

    return rewritten(schema, kept)


def check_grammar(grammar: str, tokenizer: LLTokenizer) -> None:
    """Raises BrainError where the grammar does not compile."""
    fault = LLMatcher.validate_grammar(grammar, tokenizer)
    if fault and not fault.startswith("WARNING"):
        sentence = next((line for line in fault.splitlines() if line.strip()), fault)
        raise BrainError(f"the schema of the legal calls cannot be made a grammar: {sentence.strip()}")


class GrammarConstraint:
    """A grammar followed by one sample: what it may say next."""

    def __init__(self, grammar: str, tokenizer: LLTokenizer, vocab: int) -> None:
        """Starts at the beginning of `grammar`; `vocab` is the number of logits of the model."""
        self.tokenizer = tokenizer
        self.matcher = LLMatcher(tokenizer, grammar)
        self.vocab = vocab
        self.done = False
        self.check()

    def copy(self) -> GrammarConstraint:
        """Another one that stands at the same place."""
        other = object.__new__(GrammarConstraint)
        other.tokenizer, other.vocab, other.done = self.tokenizer, self.vocab, self.done
        other.matcher = self.matcher.deep_copy()
        return other

    def check(self) -> None:
        """Notices the end of the grammar, and an error inside the matcher, which never raises by itself."""
        if self.matcher.is_error():
            raise BrainError(f"the grammar of the legal calls failed: {self.matcher.get_error().splitlines()[0]}")
        self.done = self.matcher.is_stopped()

    def allowed(self) -> NDArray[np.int64]:
        """Ids under the grammar's mask; a vocabulary padded beyond the tokenizer, or cut short of it, is left out."""
        bits = np.unpackbits(np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        ids = np.flatnonzero(bits[: min(self.vocab, self.tokenizer.vocab_size)])
        if not len(ids):
            raise BrainError("no token of the model continues the legal calls")
        return ids

    def legal(self) -> NDArray[np.int64]:
        """Ids of the tokens allowed next, ascending.

        The first forced token, or else all that are allowed: how a forced text is split is not a decision.
        """
        forced = self.forced()
        return np.array(forced[:1]) if forced else self.allowed()

    def forced(self) -> list[int]:
        """The tokens between here and the next decision, or some of them: ask again after accepting them.

        llguidance holds back the last token of a forced text, as it might merge with what follows. Where no allowed
        token reaches beyond that text it cannot, and its longest token is forced as well.
        """
        if self.done:
            return []
        if tokens := self.matcher.compute_ff_tokens():
            return tokens
        text = self.matcher.compute_ff_bytes()
        if not text:
            return []
        pieces = {int(token): len(self.tokenizer.decode_bytes([int(token)])) for token in self.allowed()}
        longest = max(pieces, key=pieces.__getitem__)
        return [longest] if pieces[longest] <= len(text) else []

    def accept_forced(self) -> list[int]:
        """Advances to the next decision, and returns the tokens that were forced on the way."""
        said: list[int] = []
        while tokens := self.forced():
            self.accept(tokens)
            said += tokens
        return said

    def accept(self, tokens: Sequence[int]) -> None:
        """Advances; an end-of-text token is taken where the grammar may end, and says so by `done`."""
        self.matcher.consume_tokens(list(tokens))
        self.check()
