"""No code of a checkpoint runs in `evaluate` or an export's verification, however it is brought along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from main import main
from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import MODELING_FILE, export
from self_pruner.tools.export.verify import VerificationError, record_expected, verify
from self_pruner.tools.models.source import load, load_tokenizer, resolve
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.foreign import WAYS, edit, in_our_place, nested, of_the_tokenizer, ran
from tests.tiny import MLP_UNIT, tiny_folder
from tests.tools.evaluation.tasks.seven import write_tasks

PROFILE = Profile((3, 1, 4), (5, 12, 1))


@pytest.fixture(scope="module")
def elastic(tmp_path_factory):
    loaded = load(resolve(str(tiny_folder(tmp_path_factory.mktemp("model") / "tiny"))), device="cpu", dtype="float32")
    ids = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(1))
    return ElasticModel(loaded.model, calibrate(loaded.model, ids), mlp_unit=MLP_UNIT), loaded.tokenizer


@pytest.fixture(scope="module")
def exported(elastic, tmp_path_factory):
    card = CardFacts("tiny", "llama", 0.3, (), "text", "python main.py")
    return export(elastic[0], PROFILE, elastic[1], tmp_path_factory.mktemp("export") / "model", card)


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def evaluate(tmp_path, capfd):
    """`evaluate` on one task; returns (status, standard error)."""
    data = write_tasks(tmp_path / "tasks", 1)
    (data / "text.txt").write_text("One sentence stands here , and another one after it .\n" * 12)

    def evaluate(folder: Path, *words: str) -> tuple[int, str]:
        options = ["--no-dense", "--task-data", str(data), "--task-rows", "1", "--dtype", "float32", "--cache"]
        options += [str(tmp_path / "cache"), "--perplexity-text", str(data / "text.txt"), "--perplexity-length", "32"]
        status = main(["evaluate", str(folder), *options, *words])
        return status, capfd.readouterr().err

    return evaluate


@pytest.mark.parametrize("way", WAYS)
def test_evaluate_runs_no_foreign_code(folder, evaluate, way):
    bring, named = WAYS[way]
    bring(folder)
    status, error = evaluate(folder)
    assert not ran(folder).exists()
    assert status == 2 and error.count("\n") == 1
    assert named in error and "allow it with --trust-remote-code" in error


@pytest.mark.parametrize("way", WAYS)
def test_an_export_whose_code_was_exchanged_is_not_verified(folder, elastic, tmp_path, way):
    ids = torch.randint(0, 512, (1, 8), generator=torch.Generator().manual_seed(1))
    expected = record_expected(elastic[0], PROFILE, ids, tmp_path / "expected.safetensors")
    bring, named = WAYS[way]
    bring(folder)
    with pytest.raises(VerificationError, match=named):
        verify(folder, expected)
    assert not ran(folder).exists()


def test_trusted_code_runs(folder, evaluate):
    in_our_place(folder)
    status, error = evaluate(folder, "--trust-remote-code")
    assert status == 0, error
    assert ran(folder).exists()


def test_our_code_is_that_of_this_project_even_where_the_folder_is_exchanged_after_the_look(
    folder, evaluate, monkeypatch
):
    from self_pruner.tools.evaluation.tasks import apart

    real = apart.child

    def exchanged(*arguments):
        in_our_place(folder)
        edit(folder / "config.json", auto_map={"AutoConfig": "modeling_self_pruner.SelfPrunedLlamaConfig"})
        return real(*arguments)

    monkeypatch.setattr(apart, "child", exchanged)
    status, error = evaluate(folder)
    assert status == 0, error
    assert not ran(folder).exists()


def test_a_checkpoint_without_its_modelling_file_needs_none(folder, evaluate):
    (folder / MODELING_FILE.name).unlink()
    assert evaluate(folder)[0] == 0


def test_a_tokenizer_with_code_of_its_own_is_refused_and_not_replaced_in_silence(folder):
    of_the_tokenizer(folder)
    with pytest.raises(ModelError, match="code of its own .*allow it with --trust-remote-code"):
        load_tokenizer(folder, trust_remote_code=False)
    assert not ran(folder).exists()


def test_loading_a_tokenizer_runs_no_code_of_its_model(folder):
    nested(folder)
    load_tokenizer(folder, trust_remote_code=False)
    assert not ran(folder).exists()
    load_tokenizer(folder, trust_remote_code=True)
    assert ran(folder).exists()


def test_a_config_cannot_ask_for_kernels_of_a_stranger(folder, evaluate):
    edit(folder / "config.json", attn_implementation="somebody/kernel")
    status, error = evaluate(folder)
    assert status == 2 and "the attn_implementation of config.json" in error
    assert json.loads((folder / "config.json").read_text())["attn_implementation"] == "somebody/kernel"
