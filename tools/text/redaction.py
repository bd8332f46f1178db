"""Keys have no place in a file or on a screen that people pass around: they are blotted out before writing.

Two things are looked for: what looks like an access token, and the very values of the variables that hold keys, as they
are or in the forms in which a server or a library repeats them. Against a server that hides a key it was told in a form
of its own invention nothing helps.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

KEYS = (  # environment variables that this program or a library of it reads a key from
    "SELF_PRUNER_BRAIN_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "VLLM_API_KEY",
    "OPENAI_API_KEY",
    "LANGSMITH_API_KEY",
    "LANGCHAIN_API_KEY",
    "WANDB_API_KEY",
    "TRACKIO_WRITE_TOKEN",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
)
REDACTED = "[redacted]"
SHORTEST = 6  # characters of a value that is looked for: "EMPTY" and "none" are no secrets
_SECRET = re.compile(
    r"""(?x)
    (?<![A-Za-z0-9])
    (?: hf_[A-Za-z0-9]{16,}                             # Hugging Face
      | (?:sk|pk|rk)-[A-Za-z0-9_-]{16,}                 # OpenAI, Anthropic and others
      | lsv2_[A-Za-z0-9_]{16,}                          # LangSmith
      | (?:ghp|gho|ghu|ghs|ghr|github_pat)_[A-Za-z0-9_]{16,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}                       # AWS
    )
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                   # name:password in an address
    """
)


def redact(text: str) -> str:
    """`text` with every access token, and every value of a variable that holds a key, replaced by `[redacted]`."""
    return _blotted(text, _pattern(hidden()))


def hidden() -> tuple[str, ...]:
    """The values of the variables that hold keys."""
    return tuple(sorted({os.environ.get(name, "").strip() for name in KEYS}))


def without_keys(value: Any) -> Any:
    """The same value of JSON, every text in it redacted, and without what UTF-8 or JSON cannot hold."""
    return _blotted_in(value, _pattern(hidden()))


def _blotted_in(value: Any, keys: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        # a brain can spell half a surrogate pair; it becomes a question mark
        return _blotted(value.encode("utf-8", "replace").decode("utf-8"), keys)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {_blotted_in(name, keys): _blotted_in(inner, keys) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_blotted_in(inner, keys) for inner in value]
    return value


def _blotted(text: str, keys: re.Pattern[str]) -> str:
    return _SECRET.sub(REDACTED, keys.sub(REDACTED, text))


@lru_cache(maxsize=8)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    """Finds every form of every value that is long enough; nothing where there is none."""
    values = tuple(value for value in values if len(value) >= SHORTEST)
    forms = {form for value in values for form in _encoded(value)}
    # the longest first: one form may hold another
    literal = map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))
    return re.compile("|".join([*map(_quoted, values), *literal]) or r"(?!)")


def _quoted(value: str) -> str:
    """Matches a value as it is, or as a text within JSON or Python, and that within another, however deep."""
    return "".join(map(_character, value))


def _character(one: str) -> str:
    if one == "\\":
        return r"\\+"
    if one in "\"'/":
        return r"\\*" + one
    if one.isascii():
        return re.escape(one)
    codes = json.dumps(one)[1:-1].replace("\\", r"\\+")
    return f"(?:{one}|{codes}|{codes.upper().replace('U', 'u')})"


def _encoded(value: str) -> set[str]:
    """A value percent-encoded, escaped in HTML, and in base64 with anything before it."""
    data = value.encode("utf-8", "surrogateescape")
    forms = {quote(data), quote(data, safe=""), quote_plus(data), html.escape(value)}
    forms |= {re.sub("%..", lambda found: found[0].lower(), form) for form in forms}
    for before in range(3):  # bytes: how the value lies in the groups of three
        first, end = -(-8 * before // 6), 8 * (before + len(data)) // 6  # characters that hold nothing else
        encoded = base64.b64encode(bytes(before) + data).decode()[first:end]
        forms |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return forms
