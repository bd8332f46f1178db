"""A tokenizer that brings code of its own: it is not run unless the user trusts it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.source import load, resolve
from tests.brain_tiny import tiny_tokenizer
from tests.tiny import tiny_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint whose tokenizer leaves a mark where its code is run."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = tiny_folder(tmp_path / "tiny", tokenizer=False)
    tiny_tokenizer().save_pretrained(path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Payload", "auto_map": {"AutoTokenizer": [None, "payload.Payload"]}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "payload.py").write_text(
        f"from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\n"
        f"Path({str(tmp_path / 'mark')!r}).touch()\nclass Payload(PreTrainedTokenizerFast):\n    pass\n"
    )
    return path


def test_the_code_of_a_tokenizer_is_run_only_when_it_is_trusted(folder, tmp_path):
    mark = tmp_path / "mark"
    with suppress(ModelError):
        load(resolve(str(folder)), device="cpu", dtype="float32")
    assert not mark.exists()
    load(resolve(str(folder)), device="cpu", dtype="float32", trust_remote_code=True)
    assert mark.exists()
