"""Text of a model or a file on its way to a terminal: control characters are shown, not obeyed, and keys blotted out.

A terminal obeys escape sequences: they move its cursor, change its title, write into the clipboard. Characters that
turn the direction of writing make a line look like another one.
"""

from __future__ import annotations

import re

from self_pruner.tools.text.redaction import redact

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, delete, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # the direction of writing
    "\u2028\u2029\ud800-\udfff]"  # newlines of their own, and halves of characters, which cannot be printed
)


def printable(text: str) -> str:
    """`text` with its controls, but for tab and newline, as escapes, and without keys."""
    return escaped(redact(text))


def escaped(text: str) -> str:
    """`text` with its controls, but for tab and newline, as escapes."""
    return _CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
