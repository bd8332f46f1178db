"""Folders of a user's own prompt files, and the one sentence with which they are refused."""

from pathlib import Path

import pytest

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.prompts.files import PromptError
from self_pruner.prompts.templates import PromptSet


def override(folder: Path, **files: str) -> Path:
    """A folder of overrides; `turn="..."` writes turn.j2."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.j2").write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path) -> PromptError:
    with pytest.raises(PromptError) as caught:
        PromptSet("default", folder).check()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SelfPrunerError)
    return caught.value
