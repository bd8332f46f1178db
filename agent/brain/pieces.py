"""A reply piece by piece, while it is being written: the thought as text, the call as its name and its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from self_pruner.tools.text.redaction import hidden, redact

ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))")
WHITE = " \t\n\r\f\v\u00a0\ufffd"


class Piece(NamedTuple):
    """What came next: a part of the text, the name of the call, or a part of its arguments as JSON."""

    kind: Literal["text", "name", "arguments"]
    said: str


def chunk(piece: Piece, call: str) -> AIMessageChunk:
    """The piece in LangChain's form; `call` is the id of the call."""
    if piece.kind == "text":
        return AIMessageChunk(content=piece.said)
    if piece.kind == "name":
        return AIMessageChunk(
            content="", tool_call_chunks=[tool_call_chunk(name=piece.said, args="", id=call, index=0)]
        )
    return AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(args=piece.said, index=0)])


def last_chunk(message: AIMessage) -> AIMessageChunk:
    """What closes the stream of a whole `message`: its cost and its facts, and no word."""
    return AIMessageChunk(
        content="",
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )


def pieces_of(message: AIMessage) -> Iterator[Piece]:
    """A whole message as pieces."""
    if message.text:
        yield Piece("text", message.text)
    for call in message.tool_calls[:1]:
        yield Piece("name", call["name"])
        yield Piece("arguments", json.dumps(call["args"]))
    for broken in message.invalid_tool_calls[:1]:
        yield Piece("arguments", broken["args"] or "}")  # nothing would be read as a call without arguments


class Line:
    """A thought on its way: without white space around it, nor what is left of a character that was cut in two."""

    def __init__(self, one_space: bool = False) -> None:
        """With `one_space` white space within the line becomes one space."""
        self.one_space = one_space
        self.begun = False
        self.held = ""

    def feed(self, text: str) -> str:
        whole = (self.held + text).rstrip(WHITE)
        self.held = (self.held + text)[len(whole) :]
        if not self.begun:
            whole = whole.lstrip()
        if self.one_space:
            whole = re.sub(r"\s+", " ", whole)
        self.begun = self.begun or bool(whole)
        return whole


class Until:
    """A text on its way up to the first of some words, none of which is given, nor a beginning of one too early."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.held = ""
        self.over = False

    def feed(self, text: str, last: bool = False) -> str:
        """What is certain now; with `last` all that is left."""
        if self.over:
            return ""
        self.held += text
        given = before(self.held, self.words)
        self.over = given != self.held
        if not (self.over or last):
            beginnings = [word[:size] for word in self.words for size in range(1, len(word))]
            given = given[: len(given) - max((len(one) for one in beginnings if given.endswith(one)), default=0)]
        self.held = self.held[len(given) :]
        return given


def before(text: str, words: Sequence[str]) -> str:
    """The text up to the first of the words in it; all of it where there is none."""
    return text[: min((place for word in words if (place := text.find(word)) >= 0), default=len(text))]


class Words:
    """A text from elsewhere on its way, word by word, so that no key in it is told in parts.

    Of `json` a word also ends at a quote or a bracket, and what is spelled in escapes is looked at too. Keys that could
    lie across words make all of it one word.
    """

    def __init__(self, json: bool) -> None:
        self.ends = r"\s\"\[\]{}" if json else r"\s"
        self.json = json
        self.whole = any(re.search(f"[{self.ends}]", key) for key in hidden())
        self.held = ""

    def feed(self, text: str, last: bool = False) -> str:
        """The words that have ended; with `last` all that is left."""
        self.held += text
        if not last and self.whole:
            return ""
        escaped = r"(?<!\\)" if self.json else ""
        places = [found.end() for found in re.finditer(f"{escaped}[{self.ends}]", self.held)]
        size = len(self.held) if last else max(places, default=0)
        ready, self.held = self.held[:size], self.held[size:]
        if self.whole:
            return redact(ready)
        return "".join(self._safe(word) for word in re.split(f"({escaped}[{self.ends}])", ready))

    def _safe(self, word: str) -> str:
        said = ESCAPE.sub(_character, word) if self.json else word
        if (safe := redact(said)) == said:
            return redact(word)
        return json.dumps(safe)[1:-1] if said != word else safe


class TextReader:
    """A text on its way as pieces, up to the first of the words that end it; of a text from elsewhere word by word."""

    def __init__(self, stop: Sequence[str], words: Words | None = None) -> None:
        self.until, self.words = Until(stop), words

    def feed(self, text: str, last: bool = False) -> list[Piece]:
        said = self.until.feed(self.words.feed(text, last) if self.words else text, last)
        return [Piece("text", said)] if said else []

    def finish(self, message: AIMessage) -> list[Piece]:
        return self.feed("", last=True)


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else escape[2]


class CallReader:
    """Reads a JSON object with a `thought`, a `name` and `arguments` as it grows; what it is no part of is passed over.

    The thought comes as text without escapes, the arguments as they are written. A `feed` must not end within an
    escape.
    """

    def __init__(self) -> None:
        self.open: list[str] = []  # brackets
        self.quoted = self.escaped = False
        self.key: str | None = None  # of the field at depth 1 whose value comes next
        self.word = ""  # the string at depth 1 so far
        self.told = 0  # characters of it, where it is the thought, that were given
        self.inside = False  # the arguments

    def feed(self, text: str) -> list[Piece]:
        """What `text` adds."""
        found: list[Piece] = []
        arguments = ""
        for character in text:
            inside = self.inside
            self._step(character, found)
            if inside or self.inside:
                arguments += character
        if self.quoted and len(self.open) == 1 and self.key == "thought":
            self._thought(found)
        return [*found, *([Piece("arguments", arguments)] if arguments else [])]

    def spoiled(self) -> Piece:
        """What makes the arguments so far invalid: LangChain would take half of them for all, and complete them."""
        escape = "\\" if self.escaped else ""
        closing = "]" if self.open[1:] and self.open[-1] == "{" else "}"
        return Piece("arguments", escape + '"' * (self.quoted and self.inside) + closing)

    def _step(self, character: str, found: list[Piece]) -> None:
        if self.quoted:
            if self.escaped or character == "\\":
                self.escaped = not self.escaped
            elif character == '"':
                self.quoted = False
                if len(self.open) == 1:
                    self._string(found)
                return
            self.word += character
        elif character == '"':
            self.quoted, self.word, self.told = True, "", 0
        elif character in "{[":
            self.inside = self.inside or (len(self.open) == 1 and self.key == "arguments" and character == "{")
            self.open.append(character)
        elif character in "}]":
            del self.open[-1:]
            self.inside = self.inside and len(self.open) > 1
        elif character == "," and len(self.open) == 1:
            self.key = None

    def _string(self, found: list[Piece]) -> None:
        """A string at depth 1 has ended."""
        if self.key is None:
            self.key = self.word
        elif self.key == "thought":
            self._thought(found)
        elif self.key == "name":
            found.append(Piece("name", unescaped(self.word)))

    def _thought(self, found: list[Piece]) -> None:
        fresh = unescaped(self.word[self.told :])
        self.told = len(self.word)
        if fresh:
            found.append(Piece("text", fresh))


def unescaped(text: str) -> str:
    """What a part of a JSON string says; as it is where it is none."""
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
