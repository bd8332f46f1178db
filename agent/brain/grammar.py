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
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from self_pruner.agent.brain.calls import LegalCall
from self_pruner.memory.errors import BrainError

CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
THOUGHT = rf"[^\x20{CONTROL}][^{CONTROL}]*"


class Constraint(Protocol):
    """What one sample may say next. The decoder knows constraints only through this."""

    done: bool
    """Nothing more may or need be said."""

    def legal(self) -> NDArray[np.int64]:
        """Ids of the tokens allowed next, ascending."""
        ...

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says; often none."""
        ...

    def accept(self, tokens: Sequence[int]) -> None:
        """Takes note of tokens that were said."""
        ...


def call_grammar(calls: Sequence[LegalCall], thought_tokens: int) -> str:
    """The grammar of a reply: a thought of at most `thought_tokens` tokens (none for 0), then one of the calls."""
    if not calls:
        raise BrainError("no call is legal, so there is nothing the brain could say")
    definitions: dict[str, Any] = {}
    branches = []
    for call in calls:
        parameters = dict(call.parameters)
        for name, schema in {**parameters.pop("$defs", {}), **parameters.pop("definitions", {})}.items():
            definitions[f"{call.name}.{name}"] = speakable(schema, call.name)
        branch = {"name": {"const": call.name}, "arguments": speakable(parameters, call.name)}
        branches.append(
            {"type": "object", "properties": branch, "required": list(branch), "additionalProperties": False}
        )
    schema = {"anyOf": branches, "$defs": definitions, "x-guidance": {"whitespace_flexible": False}}
    call_rule = f"call: %json {json.dumps(schema)}\n"
    if thought_tokens == 0:
        return "start: call\n" + call_rule
    return f'start: thought "\\n" call\nthought[max_tokens={thought_tokens}]: /{THOUGHT}/\n' + call_rule


def speakable(schema: Any, tool: str) -> Any:
    """The schema with references moved to the tool's own definitions and free strings kept to printable text."""
    if isinstance(schema, list):
        return [speakable(element, tool) for element in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(schema.get("type"), list):
        return speakable({"anyOf": [{**schema, "type": kind} for kind in schema["type"]]}, tool)
    result = {}
    for name, value in schema.items():
        if name in ("const", "enum"):
            result[name] = value
        elif name == "$ref":
            result[name] = f"#/$defs/{tool}.{str(value).rsplit('/', 1)[-1]}"
        elif name == "properties":
            result[name] = {field: speakable(inner, tool) for field, inner in value.items()}
        elif name not in ("title", "description", "default", "examples", "discriminator", "deprecated"):
            result[name] = speakable(value, tool)
    if schema.get("type") == "string" and not {"const", "enum", "pattern", "format"} & set(schema):
        low, high = result.pop("minLength", 0), result.pop("maxLength", "")
        result["pattern"] = rf'^[^"\\{CONTROL}]{{{low},{high}}}$'
    return result


def check_grammar(grammar: str, tokenizer: LLTokenizer) -> None:
    """Raises BrainError where the grammar does not compile."""
    fault = LLMatcher.validate_grammar(grammar, tokenizer)
    if fault and not fault.startswith("WARNING"):
        sentence = next((line for line in fault.splitlines() if line.strip()), fault)
        raise BrainError(f"the schema of the legal calls cannot be made a grammar: {sentence.strip()}")


class GrammarConstraint:
    """A grammar followed by one sample."""

    def __init__(self, grammar: str, tokenizer: LLTokenizer, vocab: int) -> None:
        """Starts at the beginning of `grammar`; `vocab` is the number of logits of the model."""
        self.tokenizer = tokenizer
        self.matcher = LLMatcher(tokenizer, grammar)
        self.vocab = vocab
        self.done = False
        self.check()

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
        """The first forced token, or else all that are allowed: how a forced text is split is not a decision."""
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

    def accept(self, tokens: Sequence[int]) -> None:
        """Advances; an end-of-text token is taken where the grammar may end, and says so by `done`."""
        self.matcher.consume_tokens(list(tokens))
        self.check()


class FreeText:
    """Plain chat: anything but special tokens, until the end of text or a stop string."""

    def __init__(
        self, tokenizer: LLTokenizer, vocab: int, end: Sequence[int], special: Sequence[int], stop: Sequence[str]
    ) -> None:
        """`end` are the ids that end a text; `special` are never said."""
        self.tokenizer = tokenizer
        self.end = set(end)
        self.ids = np.setdiff1d(np.arange(min(vocab, tokenizer.vocab_size)), sorted(set(special) - self.end))
        self.stop = tuple(stop)
        self.said: list[int] = []
        self.done = False

    def legal(self) -> NDArray[np.int64]:
        """Every ordinary token and the end of text."""
        return self.ids

    def forced(self) -> list[int]:
        return []

    def accept(self, tokens: Sequence[int]) -> None:
        """Takes note, and notices the end."""
        self.said += tokens
        ended = bool(self.end & set(tokens))
        self.done = ended or (bool(self.stop) and any(s in self.tokenizer.decode_str(self.said) for s in self.stop))
