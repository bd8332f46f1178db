"""Verification passes what was exported, and fails loudly on anything else."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memory.profile import Profile
from tests.tiny import MLP_UNIT, tiny_model
from tools.export import publish as publish_module
from tools.export import verify as verify_module
from tools.export.card import CardFacts
from tools.export.checkpoint import ExportError, export
from tools.export.publish import publish
from tools.export.verify import VerificationError, record_expected, verify
from tools.pruning.calibration import calibrate
from tools.pruning.elastic import ElasticModel

PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("tiny", "llama", 0.3, (), "random text", "python main.py")
INPUT_IDS = torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    model = tiny_model("llama")
    return ElasticModel(model, calibrate(model, INPUT_IDS), mlp_unit=MLP_UNIT)


@pytest.fixture
def exported(elastic, tmp_path) -> tuple[Path, Path]:
    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD).folder
    return folder, record_expected(elastic, PROFILE, INPUT_IDS, tmp_path / "expected.safetensors")


def reply(monkeypatch: pytest.MonkeyPatch, returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
    """Let the new process say `stdout` without starting it."""
    child = subprocess.CompletedProcess([], returncode, stdout, stderr)
    monkeypatch.setattr(verify_module.subprocess, "run", lambda *_args, **_options: child)


def answer(maximum: str = "0.0", cached: str = "0.0", keys: str = "[]") -> str:
    return (
        f'{{"max_abs": {maximum}, "mean_abs": 0.0, "cached_max_abs": {cached}, "scale": 0.5, "dtype": "float32", '
        f'"parameters": 7, "wrong_keys": {keys}}}\n'
    )


def test_publishing_exports_and_verifies_in_a_new_process(elastic, tmp_path):
    exported, verification = publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)

    assert verification.ok and verification.max_abs <= 1e-4 and verification.cached_max_abs <= 1e-4
    assert verification.parameters == exported.parameters == elastic.space.params(PROFILE)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_one_changed_weight_fails_in_a_real_process(exported):
    folder, expected = exported
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 1.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(VerificationError, match="not the model that was searched: its logits differ"):
        verify(folder, expected)


@pytest.mark.slow
def test_a_missing_tensor_fails_in_a_real_process(exported):
    folder, expected = exported
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(VerificationError, match="do not fit its config.*down_proj"):
        verify(folder, expected)


@pytest.mark.parametrize("numbers", [{"maximum": "NaN"}, {"maximum": "2e-4"}, {"cached": "2e-4"}, {"cached": "NaN"}])
def test_nan_and_any_difference_above_the_tolerance_fail(monkeypatch, tmp_path, numbers):
    reply(monkeypatch, stdout="something a library printed\n" + answer(**numbers))

    with pytest.raises(VerificationError, match="0.0001 is allowed"):
        verify(tmp_path, tmp_path / "expected.safetensors")


def test_tensors_that_do_not_fit_the_config_fail(monkeypatch, tmp_path):
    reply(monkeypatch, stdout=answer(keys='["model.norm.weight"]'))

    with pytest.raises(VerificationError, match="do not fit its config: .*model.norm.weight"):
        verify(tmp_path, tmp_path / "expected.safetensors")


def test_a_verification_that_cannot_be_made_is_said_and_keeps_the_folder(elastic, monkeypatch, tmp_path):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(publish_module, "record_expected", full)

    with pytest.raises(ExportError, match="was written but could not be verified: No space left on device"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)
    assert (tmp_path / "model" / "config.json").exists()


def test_a_folder_that_does_not_load_fails_with_the_last_thing_said(monkeypatch, tmp_path):
    reply(monkeypatch, returncode=1, stderr="Traceback\nOSError: no config.json")

    with pytest.raises(VerificationError, match="does not load in a new process: OSError: no config.json"):
        verify(tmp_path, tmp_path / "expected.safetensors")


def test_a_folder_that_fails_loses_its_name(elastic, monkeypatch, tmp_path):
    (tmp_path / "model.failed").mkdir()  # of an earlier try
    reply(monkeypatch, stdout=answer(maximum="1.0"))

    with pytest.raises(VerificationError, match="renamed to .*model.failed"):
        publish(elastic, PROFILE, None, tmp_path / "model", CARD, INPUT_IDS)

    assert [path.name for path in tmp_path.iterdir()] == ["model.failed"]
    assert (tmp_path / "model.failed" / "config.json").exists()
