"""The root of every error a person can act on.

It lives in the lowest package because every other one raises it: main -> agent -> tools -> memory.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class SelfPrunerError(Exception):
    """One sentence that says what was wrong and what is allowed.

    The command line prints it and exits with `exit_code`; a tool hands the same sentence to the brain.
    """

    exit_code = 2


class SettingsError(SelfPrunerError):
    """A setting, an argument or a file that was named cannot be used."""


class ModelError(SelfPrunerError):
    """A model cannot be had, read or pruned."""


class TextError(SelfPrunerError):
    """A text cannot be had, or there is too little of it."""


class MeasurementError(SelfPrunerError):
    """Something could not be measured."""


class KeptFileError(SelfPrunerError):
    """A file of measurements that was kept is damaged, or of something else."""


class ToolError(SelfPrunerError):
    """A call that a tool refuses; the sentence goes to the brain."""


class RunDirectoryError(SelfPrunerError):
    """A run directory cannot be made, read or gone on with."""


class MemoryFileError(SelfPrunerError):
    """The memory file cannot be used; the sentence says why and what to do."""


class ExportError(SelfPrunerError):
    """A checkpoint cannot be written, or not in that form."""


class EngineError(SelfPrunerError):
    """vLLM or llama.cpp is not there, or did not do what it was asked."""


class BrainError(SelfPrunerError):
    """A brain cannot answer."""


def meant(
    wrong: str,
    known: Iterable[str],
    most: int = 1,
    *,
    before: str = "",
    after: str = "?",
    likeness: float = 0.6,
    said: Callable[[str], str] = repr,
) -> str:
    """What was probably meant by a wrong word, as a part of a sentence; empty where no known word is like it.

    Args:
        wrong: the word.
        known: those that are allowed.
        most: how many are named.
        before: what is said first, where anything is.
        after: what is said last.
        likeness: the least at which one is named, from 0 to 1.
        said: how a word is written.
    """
    near = get_close_matches(wrong, list(known), most, likeness)
    return f"{before}did you mean {' or '.join(map(said, near))}{after}" if near else ""
