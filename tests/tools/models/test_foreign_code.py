"""Code that a checkpoint brings: our own is known byte for byte, any other is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from self_pruner.tools.export.checkpoint import MODELING_FILE
from self_pruner.tools.models.foreign_code import ForeignCodeError, check_code
from tests.tiny import tiny_folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tiny_folder(tmp_path / "model")
    shutil.copyfile(MODELING_FILE, folder / MODELING_FILE.name)
    return folder


def test_our_own_code_passes_and_any_other_is_refused_unless_trusted(checkpoint):
    check_code(checkpoint)
    (checkpoint / MODELING_FILE.name).write_text("import os\n")
    with pytest.raises(ForeignCodeError, match=f"brings code that is not .*{MODELING_FILE.name}"):
        check_code(checkpoint)
    check_code(checkpoint, trusted=True)


def test_further_code_is_refused_too(checkpoint):
    (checkpoint / "tokenization_x.py").write_text("")
    with pytest.raises(ForeignCodeError, match="tokenization_x.py"):
        check_code(checkpoint)
