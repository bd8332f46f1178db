"""Text from a person's own file, `.txt` or `.jsonl` with one document a line, and the names that are no file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from self_pruner.memory.errors import TextError
from self_pruner.memory.paths import expanded

BUNDLED = ("passages", "papers")
NAMES = (*BUNDLED, "wikitext2", "c4")  # of texts that come from elsewhere, whatever lies in the working directory
SUFFIXES = (".txt", ".jsonl")
FIELDS = ("text", "page")  # the second is what page-level WikiText calls it


def anchored_text(name: str, base: Path) -> str:
    """A text's name as it is understood from any folder: that of a file in `base` made absolute, unless in `NAMES`."""
    path = base / expanded(name)
    return str(path.resolve()) if name.lower() not in NAMES and path.is_file() else name


def read_documents(path: Path) -> list[str]:
    """The documents of a file, in order: the whole of a `.txt`, every line of a `.jsonl`.

    Raises:
        TextError: wrong suffix, no such file, not UTF-8, no text in it, or a line that is no document (its number
            is named).
    """
    if path.suffix.lower() not in SUFFIXES:
        raise TextError(f"{str(path)!r} is no text file: its name must end in {' or '.join(SUFFIXES)}")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise TextError(f"the text file {str(path)!r} does not exist") from None
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise TextError(f"{str(path)!r} is not UTF-8 text: line {line} has the byte {byte:#04x}") from None
    except OSError as error:
        raise TextError(f"the text file {str(path)!r} cannot be read: {error.strerror}") from error
    is_lines = path.suffix.lower() == ".jsonl"
    documents = parse_lines(content, str(path)) if is_lines else [content.replace("\r\n", "\n")]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise TextError(f"{str(path)!r} is empty: there is no text in it")
    return documents


def parse_lines(content: str, where: str) -> list[str]:
    """The documents in JSON lines; `where` names their place in errors. Blank lines are skipped.

    Raises:
        TextError: when a line is no JSON object with a text in one of `FIELDS`.
    """
    documents = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            documents.append(_document(line, f"line {number} of {where!r}"))
    return documents


def _document(line: str, place: str) -> str:
    """The text of one JSON line."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise TextError(f"{place} is no JSON: {error}") from None
    allowed = " or ".join(map(repr, FIELDS))
    if not isinstance(row, dict):
        raise TextError(f"{place} must be a JSON object with a field {allowed}")
    text = next((row[field] for field in FIELDS if field in row), None)
    if not isinstance(text, str):
        raise TextError(f"{place} has no text: it needs a string in the field {allowed}, it has {sorted(row)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TextError(f"{place} has half a character (a lone surrogate), which no tokenizer can read") from None
    return text
