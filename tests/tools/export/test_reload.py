"""How far a reloaded folder's logits are: of every token, of one decoded with the cache, and what did not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from self_pruner.tools.export.reload import compare
from tests.tiny import tiny_model

INPUT_IDS = torch.randint(0, 512, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reload") / "model"
    tiny_model("llama").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    """Of the tiny model, [2, 12, 512]."""
    with torch.no_grad():
        return tiny_model("llama")(INPUT_IDS).logits


def differences(folder: Path, tmp_path: Path, logits: torch.Tensor, layers: str = "cpu") -> dict[str, object]:
    save_file({"input_ids": INPUT_IDS, "logits": logits.contiguous()}, tmp_path / "expected.safetensors")
    return compare(str(folder), str(tmp_path / "expected.safetensors"), "cpu", layers)


@pytest.mark.parametrize("layers", ["cpu", "disk"])
def test_the_very_model_differs_by_rounding_alone(folder, tmp_path, logits, layers):
    found = differences(folder, tmp_path, logits, layers)
    assert found["max_abs"] == pytest.approx(0, abs=1e-4) and found["cached_max_abs"] == pytest.approx(0, abs=1e-4)
    assert found["scale"] == pytest.approx(logits.abs().max().item())
    assert (found["dtype"], found["wrong_keys"]) == ("float32", [])


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("token", "cached"), [(0, 0.0), (6, 0.0), (11, 3.0)])
def test_one_wrong_logit_is_found_in_any_row_and_the_last_one_with_the_cache_too(
    folder, tmp_path, logits, row, sign, token, cached
):
    wrong = logits.clone()
    wrong[row, token, 7] += 3.0 * sign
    found = differences(folder, tmp_path, wrong)
    assert found["max_abs"] == pytest.approx(3.0, abs=1e-3)
    assert found["cached_max_abs"] == pytest.approx(cached, abs=1e-3)


@pytest.mark.parametrize("layers", ["cpu", "disk"])
def test_tensors_too_few_and_too_many_are_named(folder, tmp_path, logits, layers):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.surplus.weight"] = torch.ones(2)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert differences(other, tmp_path, logits, layers)["wrong_keys"] == ["model.norm.weight", "model.surplus.weight"]


def test_layers_on_the_disk_are_those_of_many_files_and_their_wrong_weights_and_shapes_are_found(tmp_path, logits):
    path, name = tmp_path / "shards", "model.layers.1.mlp.down_proj.weight"
    tiny_model("llama").save_pretrained(path, max_shard_size="100KB")
    assert differences(path, tmp_path, logits, "disk")["max_abs"] == pytest.approx(0, abs=1e-4)
    shard = path / json.loads((path / "model.safetensors.index.json").read_text())["weight_map"][name]
    tensors = load_file(shard)
    tensors[name][3, 5] += 1.0
    save_file(tensors, shard, metadata={"format": "pt"})
    assert differences(path, tmp_path, logits, "disk")["max_abs"] > 0.01
    tensors[name] = tensors[name][:, :-8].contiguous()
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises((RuntimeError, ValueError)):
        differences(path, tmp_path, logits, "disk")


def test_a_head_that_is_the_embedding_is_there_where_layers_are_on_the_disk(tmp_path):
    model = tiny_model("llama", tied=True)
    model.save_pretrained(tmp_path / "tied")
    with torch.no_grad():
        found = differences(tmp_path / "tied", tmp_path, model(INPUT_IDS).logits, "disk")
    assert found["max_abs"] == pytest.approx(0, abs=1e-4) and found["wrong_keys"] == []
