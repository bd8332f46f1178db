"""Verification passes what was exported, and fails loudly on anything else."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export import checkpoint as checkpoint_module
from self_pruner.tools.export import naming as naming_module
from self_pruner.tools.export import publish as publish_module
from self_pruner.tools.export import verify as verify_module
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.naming import UNFINISHED
from self_pruner.tools.export.publish import publish
from self_pruner.tools.export.reload import compare
from self_pruner.tools.export.verify import VerificationError, record_expected, verify
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model

PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("tiny", "llama", 0.3, (), "random text", "python main.py")
INPUT_IDS = torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(1))

WHOLE = [
    *("README.md", "config.json", "generation_config.json", "model.safetensors"),
    *("modeling_self_pruner.py", "self_pruner.json"),
]


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    model = tiny_model("llama")
    return ElasticModel(model, calibrate(model, INPUT_IDS), mlp_unit=MLP_UNIT)


@pytest.fixture
def exported(elastic, tmp_path) -> tuple[Path, Path]:
    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD)
    return folder, record_expected(elastic, PROFILE, INPUT_IDS, tmp_path / "expected.safetensors")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the new process does, done in this one."""

    def run(args: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 0, json.dumps(compare(*args[-4:])), "")

    monkeypatch.setattr(verify_module.subprocess, "run", run)


@pytest.fixture
def one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new process, which is not started, says that a logit differs by 1."""
    said = '{"max_abs": 1.0, "cached_max_abs": 0.0, "scale": 0.5, "dtype": "float32", "wrong_keys": []}'
    child = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr(verify_module.subprocess, "run", lambda *_args, **_options: child)


def test_publishing_exports_and_verifies_in_a_new_process(elastic, tmp_path):
    assert publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS) <= 1e-4

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_changed_weight_fails(exported, here):
    folder, expected = exported
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 1.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(VerificationError, match="not the model that was searched: its logits differ"):
        verify(folder, expected)


def test_a_missing_tensor_fails(exported, here):
    folder, expected = exported
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(VerificationError, match="do not fit its config.*down_proj"):
        verify(folder, expected)


def test_a_checkpoint_that_cannot_be_verified_is_kept_but_gets_no_name(elastic, monkeypatch, tmp_path):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(publish_module, "record_expected", full)

    with pytest.raises(ExportError, match="model.failed' but could not be verified: No space left on device"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.failed"]
    assert (tmp_path / "model.failed" / "config.json").exists()


def test_a_checkpoint_has_no_name_while_it_is_verified(elastic, monkeypatch, tmp_path):
    seen = []

    def look(folder, *_args, **_options):
        seen.append((folder.name, (tmp_path / "model").exists(), (folder / "config.json").exists()))
        return 0.0

    monkeypatch.setattr(publish_module, "verify", look)

    publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    assert seen == [("model.partial", False, True)]
    assert (tmp_path / "model" / "config.json").exists() and not (tmp_path / "model" / UNFINISHED).exists()


def test_an_older_checkpoint_stays_until_the_new_one_is_verified(elastic, one_off, tmp_path):
    export(elastic, PROFILE, None, tmp_path / "model", CARD)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()

    with pytest.raises(VerificationError):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS, replace=True)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (checkpoint_module, "write_sharded"),
        (checkpoint_module, "write_provenance"),
        (publish_module, "record_expected"),
        (publish_module, "verify"),
        (naming_module, "give_name"),
        (naming_module.Path, "touch"),  # the folder is there, its mark is not
        (naming_module.Path, "unlink"),  # the folder has its name, the mark is still in it
    ],
    ids=lambda place: place if isinstance(place, str) else "",
)
def test_a_process_killed_while_it_exports_leaves_no_name_and_nothing_in_the_way(
    elastic, monkeypatch, tmp_path, place, name
):
    folder = tmp_path / "model"
    monkeypatch.setattr(publish_module, "verify", lambda *_args, **_options: 0.0)
    really = getattr(place, name)

    def killed(*args, **options):
        if name == "unlink" and args[0].name != UNFINISHED:
            return really(*args, **options)
        os._exit(9)

    child = os.fork()
    if child == 0:
        setattr(place, name, killed)
        with suppress(BaseException):
            publish(elastic, PROFILE, None, folder, CARD, INPUT_IDS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if name == "unlink":  # it was whole and verified before it got its name
        assert sorted(path.name for path in folder.iterdir() if path.name != UNFINISHED) == WHOLE
        return
    assert not folder.exists()

    publish(elastic, PROFILE, None, folder, CARD, INPUT_IDS)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_was_replaced_when_a_process_was_killed_is_cleared(elastic, monkeypatch, tmp_path):
    export(elastic, PROFILE, None, tmp_path / "model", CARD)
    really = os.rename
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "rename", lambda *names: really(*names) or os._exit(9))
        with suppress(BaseException):
            export(elastic, PROFILE, None, tmp_path / "model", CARD, replace=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.partial", "model.replaced"]
    for _ in range(2):
        export(elastic, PROFILE, None, tmp_path / "model", CARD, replace=True)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_strangers_folder_is_not_deleted_where_a_checkpoint_is_replaced(elastic, tmp_path):
    (tmp_path / "model.replaced").mkdir()
    (tmp_path / "model.replaced" / "thesis.txt").write_text("mine")
    for _ in range(2):
        export(elastic, PROFILE, None, tmp_path / "model", CARD, replace=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.replaced"]
    assert (tmp_path / "model.replaced" / "thesis.txt").read_text() == "mine"


def test_a_strangers_folder_is_not_deleted_for_a_failed_checkpoint(elastic, one_off, tmp_path):
    (tmp_path / "model.failed").mkdir()
    (tmp_path / "model.failed" / "thesis.txt").write_text("mine")

    for _ in range(2):
        with pytest.raises(VerificationError, match="renamed to .*model.failed-2'"):
            publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    assert (tmp_path / "model.failed" / "thesis.txt").read_text() == "mine"


def test_a_folder_that_fails_loses_its_name(elastic, one_off, tmp_path):
    (tmp_path / "model.failed").mkdir()  # of an earlier try

    with pytest.raises(VerificationError, match="renamed to .*model.failed"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)

    assert [path.name for path in tmp_path.iterdir()] == ["model.failed"]
    assert (tmp_path / "model.failed" / "config.json").exists()
