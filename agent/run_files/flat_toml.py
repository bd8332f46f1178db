"""Settings as a flat TOML table: the standard library reads TOML, this writes the little of it that settings need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from self_pruner.memory.errors import SelfPrunerError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class NotUnicodeError(SelfPrunerError):
    """A text, such as a file name in another encoding, that no UTF-8 file can hold."""


def dumps(table: Mapping[str, object]) -> str:
    """One `key = value` line an entry, which `tomllib` reads back as the same value (tuples as lists).

    Args:
        table: strings, integers, floats, booleans, lists or tuples of them; None is left out, as TOML has no null.

    Raises:
        NotUnicodeError: a text that UTF-8 cannot hold.
        TypeError: a value of any other type.
    """
    lines = []
    for key, value in table.items():
        if value is not None:
            name = key if _BARE_KEY.fullmatch(key) else _string(key)
            lines.append(f"{name} = {_value(key, value)}\n")
    return "".join(lines)


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):  # before int, which it is too
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(key, item) for item in value)}]"
    raise TypeError(f"the setting {key!r} cannot be written to TOML: {value!r}")


def _string(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotUnicodeError(f"the setting {text!r} is not valid Unicode and cannot be saved with the run") from error
    # JSON's escapes are all TOML's too; TOML alone wants DEL escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
