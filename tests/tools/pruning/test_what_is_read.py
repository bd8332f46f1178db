"""What is read of a calibration file: no Gram matrix where each channel by itself is enough, and nothing in vain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from self_pruner.memory.profile import PARTS
from self_pruner.tools.models.tensor_files import TensorFiles
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning import calibration as module
from self_pruner.tools.pruning.baselines import flap, owl
from self_pruner.tools.pruning.calibration import Calibration, calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import importance_orders
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import MLP_UNIT, tiny_model


@pytest.fixture
def kept(tmp_path) -> Calibration:
    """A calibration of the tiny model, in a file."""
    return calibrate(tiny_model("llama"), tokens(), path=tmp_path / "calibration.safetensors")


@pytest.fixture
def read(monkeypatch) -> list[tuple[str, int]]:
    """The tensors that are read, by name, and the bytes of each."""
    seen: list[tuple[str, int]] = []
    original = TensorFiles.read

    def reading(self, name, rows=None):
        found = original(self, name, rows)
        seen.append((name, found.nbytes))
        return found

    monkeypatch.setattr(TensorFiles, "read", reading)
    return seen


def tokens() -> torch.Tensor:
    return torch.randint(0, 512, (4, 32), generator=torch.Generator().manual_seed(0))


def without_diagonals(path: Path) -> Calibration:
    """The same calibration in a file as earlier versions wrote it."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.endswith("diagonal")}
    assert len(tensors) == 3 * len(PARTS) * 3
    save_file(tensors, path.with_name("older"), metadata)
    return Calibration.load(path.with_name("older"))


def test_each_channel_by_itself_is_the_same_in_memory_in_a_file_and_in_one_of_an_earlier_version(
    kept, read, monkeypatch
):
    older = without_diagonals(kept.path)
    monkeypatch.setattr(module, "GRAM_BLOCK", 40)  # the last one is ragged
    plain = calibrate(tiny_model("llama"), tokens())
    read.clear()
    for part, channels in (("attention", 128), ("mlp", 96)):
        expected = plain.features(1, part)
        for one in (plain, kept, older):
            found = one.channel_moments(1, part)
            assert torch.equal(found.squares, expected.gram.diagonal()) and torch.equal(found.sums, expected.sums)
            assert found.tokens == expected.tokens == 128
            assert one.channels(part) == channels
    assert max(count for _, count in read) == 40 * 128 * 4  # some rows of the older file


@pytest.mark.parametrize(("method", "names"), [("wanda-sp", 12), ("flap", 12), ("magnitude", 0)])
def test_orders_read_no_gram_matrix_and_those_by_magnitude_nothing(kept, read, method, names):
    expected = importance_orders(
        ResidentLayers(tiny_model("llama")), calibrate(tiny_model("llama"), tokens()), 4, method
    )
    found = importance_orders(ResidentLayers(tiny_model("llama")), kept, 4, method)
    assert all(
        torch.equal(one, other) for part in (0, 1) for one, other in zip(found[part], expected[part], strict=True)
    )
    assert len(read) == names and not any(name.endswith("gram") for name, _ in read)


def test_closed_forms_read_no_gram_matrix(kept, read):
    elastic = ElasticModel(tiny_model("llama"), kept, mlp_unit=MLP_UNIT)
    plain = ElasticModel(tiny_model("llama"), calibrate(tiny_model("llama"), tokens()), mlp_unit=MLP_UNIT)
    budget = Budget.from_sparsity(elastic.space, 0.3)
    for rule in (owl, flap):
        assert rule(budget, elastic) == rule(budget, plain)
    assert read and not any(name.endswith("gram") for name, _ in read)


@pytest.mark.parametrize("compensation", ["none", "bias"])
def test_candidates_without_refits_read_no_gram_matrix_and_their_residuals_each_once(kept, read, compensation):
    models = [
        ElasticModel(tiny_model("llama"), one, mlp_unit=MLP_UNIT, compensation=compensation)
        for one in (kept, calibrate(tiny_model("llama"), tokens()))
    ]
    profile = uniform(Budget.from_sparsity(models[0].space, 0.3))
    found, expected = (one.logits(tokens(), profile) for one in models)
    assert torch.equal(found, expected) and not any(name.endswith("gram") for name, _ in read)
    found, expected = (one.residual(1, "mlp") for one in models)
    assert torch.equal(found, expected) and [name for name, _ in read].count("mlp.1.gram") == 1
