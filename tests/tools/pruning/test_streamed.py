"""Layers read from files: the same numbers as in memory, two of them at a time, and files that change are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.models.bundled import bundled_model
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.pruning.calibration import Calibration, calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_tensors
from self_pruner.tools.pruning.store import ResidentLayers
from self_pruner.tools.pruning.streamed import StreamedLayers
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_model

PROFILES = (Profile((1, 3, 2), (5, 12, 1)), Profile((4, 4, 4), (12, 12, 12)), Profile((1, 3, 4), (5, 2, 9)))


def text(sequences: int = 4, length: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 512, (sequences, length), generator=torch.Generator().manual_seed(seed))


def saved(path: Path, family: str = "llama", shard: str = "5GB", **options) -> tuple[torch.nn.Module, list[Path]]:
    """A model in memory and its files."""
    model = tiny_model(family, **options)
    model.save_pretrained(path, max_shard_size=shard)
    AutoTokenizer.from_pretrained(bundled_model()).save_pretrained(path)
    return model, sorted(path.glob("*.safetensors"))


def streamed(path: Path, dtype: str = "float32") -> tuple[Any, StreamedLayers]:
    """The same model with its layers in the files."""
    loaded = load(resolve(str(path)), device="cpu", dtype=dtype, layers=False)
    assert loaded.files is not None
    return loaded.model, StreamedLayers(loaded.model, loaded.files)


def has_numbers(model) -> list[int]:
    """The layers whose parameters are there."""
    return [i for i, layer in enumerate(model.model.layers) if not all(p.is_meta for p in layer.parameters())]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"shard": "100KB"}], ids=["untied", "tied", "in many files"])
def test_calibration_scores_and_exported_tensors_are_those_of_the_resident_model_to_the_bit(tmp_path, family, options):
    model, shards = saved(tmp_path, family, **options)
    assert (len(shards) > 1) == ("shard" in options)
    other, store = streamed(tmp_path)
    ids = text(seed=1)
    with store:
        moments = calibrate(model, text()), calibrate(other, text(), store=store)
        for part in ("attention", "mlp"):
            for layer in range(3):
                here, there = (one.features(layer, part) for one in moments)
                assert torch.equal(here.gram, there.gram) and torch.equal(here.sums, there.sums)
        found = []
        for one, kept, own in ((model, moments[0], ResidentLayers(model)), (other, moments[1], store)):
            elastic = ElasticModel(one, kept, mlp_unit=MLP_UNIT, store=own)
            walk = PopulationWalk(elastic, elastic.store, DenseTargets.build(elastic, elastic.store, ids), ids)
            scores = [measured.kl for measured in walk.measure(PROFILES, range(4))]
            found.append((scores, dict(smaller_tensors(elastic, PROFILES[0])), elastic.residual(1, "mlp")))
        assert found[0][0] == found[1][0] and all(len(each) == 4 for each in found[0][0])
        assert found[0][1].keys() == found[1][1].keys()
        assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())
        assert torch.equal(found[0][2], found[1][2])
        assert has_numbers(other) == []


def test_a_walk_of_many_candidates_reads_every_layer_once(tmp_path):
    model, shards = saved(tmp_path)
    other, store = streamed(tmp_path)
    with store:
        elastic = ElasticModel(other, calibrate(other, text(), store=store), mlp_unit=MLP_UNIT, store=store)
        targets = DenseTargets.build(elastic, store, text())
        walk = PopulationWalk(elastic, store, targets, text(), prefix_memory=0)
        before = store.layers_read
        walk.measure(PROFILES, range(4))
        assert store.layers_read - before == 3
        layer = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
        assert store.bytes_read in (layer * store.layers_read, layer * (store.layers_read + 1))  # one is on its way


def test_only_the_layer_in_use_has_numbers_and_asking_twice_reads_once(tmp_path):
    saved(tmp_path)
    other, store = streamed(tmp_path)
    with store:
        with store.layer(1) as layer, store.layer(1) as again:
            assert layer is again is other.model.layers[1] and has_numbers(other) == [1]
        assert has_numbers(other) == [] and store.layers_read == 1


def test_the_whole_model_runs_and_so_does_one_that_is_reordered(tmp_path):
    model, shards = saved(tmp_path)
    other, store = streamed(tmp_path)
    with store, torch.no_grad():
        assert torch.equal(other(text()).logits, model(text()).logits)
        ElasticModel(other, calibrate(other, text(), store=store), mlp_unit=MLP_UNIT, store=store)
        ElasticModel(model, calibrate(model, text()), mlp_unit=MLP_UNIT)
        assert torch.equal(other(text()).logits, model(text()).logits)
        assert has_numbers(other) == []


def test_what_a_brain_reads_can_be_used_by_everybody_afterwards(tmp_path):
    saved(tmp_path)
    other, store = streamed(tmp_path)
    with store:
        with torch.inference_mode():
            other(text())
        assert not any(parameter.is_inference() for parameter in other.parameters())
        with store.layer(0) as layer:
            assert not any(parameter.is_inference() for parameter in layer.parameters())


def test_a_layer_that_fails_leaves_no_numbers_behind(tmp_path):
    saved(tmp_path)
    other, store = streamed(tmp_path)
    with store:
        with pytest.raises(ZeroDivisionError), store.layer(2):
            1 / 0  # noqa: B018
        with pytest.raises(AttributeError):
            other.model.layers[0]("no hidden states")
        assert has_numbers(other) == []


def test_weights_are_used_in_the_type_that_was_asked_for(tmp_path):
    saved(tmp_path)
    other, store = streamed(tmp_path, "bfloat16")
    with store, store.layer(0) as layer:
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}
        assert other.dtype == torch.bfloat16


def shorter(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


def written_to(shard: Path) -> None:
    with open(shard, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))
    os.utime(shard, ns=(1, 1))


def replaced(shard: Path) -> None:
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-8] + bytes(8))


@pytest.mark.parametrize(
    "change, sentence",
    [(shorter, "shorter|changed"), (written_to, "changed"), (replaced, "changed"), (Path.unlink, "cannot be read")],
)
def test_a_file_that_changes_while_it_is_read_is_one_sentence(tmp_path, change, sentence):
    _, shards = saved(tmp_path)
    _, store = streamed(tmp_path)
    with store:
        with store.layer(0):
            pass
        change(shards[0])
        with pytest.raises(ModelError, match=sentence), store.layer(2):
            pass


def test_a_tensor_that_is_missing_or_of_another_shape_is_named(tmp_path):
    _, shards = saved(tmp_path, "llama")
    other, store = streamed(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    with store:
        store._files.stored[name] = store._files.stored["model.norm.weight"]
        with pytest.raises(ModelError, match=r"'mlp.up_proj.weight' of layer 1 has shape \[64\], not \[96, 64\]"):
            other.model(text())
        del store._files.stored[name]
        with pytest.raises(ModelError, match="no tensor 'model.layers.1.mlp.up_proj.weight'"), store.layer(1):
            pass


def test_a_calibration_of_a_streamed_model_loads_from_its_file(tmp_path):
    saved(tmp_path)
    other, store = streamed(tmp_path)
    with store:
        made = calibrate(other, text(), store=store)
    made.save(tmp_path / "calibration.safetensors")
    kept = Calibration.load(tmp_path / "calibration.safetensors")
    assert torch.equal(kept.features(2, "mlp").gram, made.features(2, "mlp").gram)
