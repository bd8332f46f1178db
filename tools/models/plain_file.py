"""Files of a checkpoint that somebody else made: only plain files are opened, and only as far as they may go.

A pipe in the place of a file is waited for without end, a device is read without end, and JSON that is nested without
end is one no parser comes back from.
"""

from __future__ import annotations

import json
import stat
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

DEEPEST = 64  # levels of nesting; what is real has a handful
LARGEST = 256 << 20  # bytes of a file that is read whole by the libraries
READ_WHOLE = ("*.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "*.jinja")
MORE_TEMPLATES = "additional_chat_templates"  # the one folder that is read beside a tokenizer


def strange_file(folder: Path) -> str | None:
    """What no checkpoint holds and would be read all the same, in words; None where there is nothing of that kind."""
    inner = folder / MORE_TEMPLATES
    for path in (*folder.iterdir(), *(inner.iterdir() if inner.is_dir() else ())):
        try:
            found = path.stat()
        except OSError:
            continue  # a link that leads nowhere is as good as no file
        if stat.S_ISREG(found.st_mode):
            if found.st_size > LARGEST and any(fnmatch(path.name, pattern) for pattern in READ_WHOLE):
                return f"{path.name} has {found.st_size:,} bytes, and at most {LARGEST:,} are read"
        elif not stat.S_ISDIR(found.st_mode):
            return f"{path.name} is a pipe or a device, not a file"
    return None


def size_of(path: Path) -> int:
    """Bytes of a plain file; ValueError for anything else, OSError where there is nothing."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a file")
    return found.st_size


def read_json(path: Path, most: int) -> Any:
    """The value in a JSON file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no plain file, too large, no JSON or nested too deep.
    """
    size = size_of(path)
    if size > most:
        raise ValueError(f"it has {size:,} bytes, and at most {most:,} are read")
    return parse_json(path.read_bytes())


def parse_json(text: bytes) -> Any:
    """The value of a JSON text; ValueError for no JSON and for more than `DEEPEST` levels of nesting."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def _inside(value: Any) -> list[Any]:
    """The lists and objects in a list or object."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]
