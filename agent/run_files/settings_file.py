"""The content of a run's `settings.toml`: a flat table, which `tomllib` reads back as the same values."""

from __future__ import annotations

from collections.abc import Mapping

import tomli_w

from self_pruner.memory.errors import SelfPrunerError


class NotUnicodeError(SelfPrunerError):
    """A text, such as a file name in another encoding, that no UTF-8 file can hold."""


def settings_file(settings: Mapping[str, object]) -> str:
    """The content of `settings.toml`, without the settings that are None, for TOML has no null.

    Raises:
        NotUnicodeError: a text that UTF-8 cannot hold.
    """
    text = tomli_w.dumps({name: value for name, value in settings.items() if value is not None})
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n")
        raise NotUnicodeError(
            f"the setting {text.splitlines()[line]!r} is not valid Unicode and cannot be saved with the run"
        ) from error
    return text
