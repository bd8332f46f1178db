"""A tokenizer that brings code of its own: it is not run unless the user trusts it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.source import load, resolve
from tests.foreign import ran, tiny_with_tokenizer_code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint whose tokenizer leaves a mark where its code is run."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tiny_with_tokenizer_code(tmp_path / "tiny")


def test_the_code_of_a_tokenizer_is_run_only_when_it_is_trusted(folder):
    mark = ran(folder)
    with suppress(ModelError):
        load(resolve(str(folder)), device="cpu", dtype="float32")
    assert not mark.exists()
    load(resolve(str(folder)), device="cpu", dtype="float32", trust_remote_code=True)
    assert mark.exists()
