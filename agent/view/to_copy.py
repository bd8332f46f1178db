"""Commands that are said so that somebody copies them: a shell takes every word of them as it is meant."""

from __future__ import annotations

import shlex


def to_copy(*words: object) -> str:
    """A command of these words."""
    return shlex.join(map(str, words))


def own_command(*words: object) -> str:
    """The same, of this program."""
    return to_copy("python", "main.py", *words)
