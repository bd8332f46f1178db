"""Exported folders: what is in them, and that they never appear half-written."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export import checkpoint, naming
from self_pruner.tools.export.card import CardFacts, CardRow
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model

PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("org/tiny", "llama", 0.3, (CardRow("found", 142784),), "random text", "python main.py --seed 0")


def elastic_model(family: str = "llama", compensation: str = "lstsq", **options) -> ElasticModel:
    model = tiny_model(family, **options)
    text = torch.randint(0, 512, (8, 32), generator=torch.Generator().manual_seed(0))
    return ElasticModel(model, calibrate(model, text), compensation=compensation, mlp_unit=MLP_UNIT)


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    return elastic_model()


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return found


def assert_nothing_left(directory: Path) -> None:
    assert list(directory.iterdir()) == []


def test_the_tensors_are_really_smaller_and_the_config_states_every_layer(elastic, tmp_path):
    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD)

    found = shapes(folder)
    config = json.loads((folder / "config.json").read_text())
    for layer, (groups, blocks) in enumerate(zip(PROFILE.attention, PROFILE.mlp, strict=True)):
        name = f"model.layers.{layer}"
        assert found[f"{name}.self_attn.q_proj.weight"] == (groups * 2 * 16, 64)
        assert found[f"{name}.self_attn.k_proj.weight"] == (groups * 16, 64)
        assert found[f"{name}.self_attn.o_proj.weight"] == (64, groups * 2 * 16)
        assert found[f"{name}.mlp.down_proj.weight"] == (64, blocks * MLP_UNIT)
        assert config["per_layer_config"][str(layer)] == {
            "num_attention_heads": groups * 2,
            "num_key_value_heads": groups,
            "intermediate_size": blocks * MLP_UNIT,
        }
    assert config["head_dim"] == 16
    assert config["dtype"] == "float32"
    assert config["allow_global_per_layer_attribute_access"] is True
    assert config["architectures"] == ["SelfPrunedLlamaForCausalLM"]
    assert list(config["auto_map"]) == ["AutoConfig", "AutoModel", "AutoModelForCausalLM"]
    assert sum(map(math.prod, found.values())) == elastic.space.params(PROFILE)


def test_the_folder_holds_the_modelling_file_with_its_licence_and_nothing_unfinished(elastic, tmp_path):
    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD)

    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_self_pruner.py",
        "self_pruner.json",
    }
    assert "SPDX-License-Identifier: Apache-2.0" in (folder / "modeling_self_pruner.py").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_weights_file_is_as_readable_as_the_others(elastic, tmp_path):
    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD)

    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_a_path_of_this_machine_does_not_reach_the_config(elastic, tmp_path, monkeypatch):
    monkeypatch.setattr(elastic.model.config, "_name_or_path", "/home/somebody/secret")

    folder = export(elastic, PROFILE, None, tmp_path / "model", CARD)

    assert "/home/somebody" not in (folder / "config.json").read_text()


def test_a_half_precision_model_stays_half_precision(tmp_path):
    folder = export(elastic_model(dtype=torch.bfloat16), PROFILE, None, tmp_path / "model", CARD)

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_tied_head_is_written_once(tmp_path):
    tied = elastic_model(tied=True)

    found = shapes(export(tied, PROFILE, None, tmp_path / "model", CARD))

    assert "lm_head.weight" not in found
    assert sum(map(math.prod, found.values())) == tied.space.params(PROFILE)


def test_many_shards_hold_the_same_tensors_and_an_index(elastic, tmp_path):
    whole = export(elastic, PROFILE, None, tmp_path / "whole", CARD)
    steps: list[tuple[int, int]] = []
    sharded = export(
        elastic,
        PROFILE,
        None,
        tmp_path / "sharded",
        CARD,
        shard_bytes=100_000,
        progress=lambda done, total: steps.append((done, total)),
    )

    shards = {path.name for path in sharded.glob("*.safetensors")}
    assert len(shards) > 1
    assert shapes(sharded) == shapes(whole)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(shapes(whole)) and set(index["weight_map"].values()) == shards
    total = 4 * elastic.space.params(PROFILE)
    assert steps[-1] == (total, total)
    assert steps == sorted(steps) and len(steps) == len(index["weight_map"])


def test_an_existing_folder_is_refused_and_left_as_it_was(elastic, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("keep")

    with pytest.raises(ExportError, match="exists already"):
        export(elastic, PROFILE, None, tmp_path / "model", CARD)

    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine.txt"]


def test_replace_puts_a_complete_folder_in_the_place_of_the_old_one(elastic, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").write_text("old")

    export(elastic, PROFILE, None, tmp_path / "model", CARD, replace=True)

    assert (tmp_path / "model" / "config.json").exists()
    assert not (tmp_path / "model" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_remains_of_a_killed_export_are_cleared_but_a_strangers_folder_is_not(elastic, tmp_path):
    ours, theirs = tmp_path / "a.partial", tmp_path / "b.partial"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    (ours / naming.UNFINISHED).touch()

    export(elastic, PROFILE, None, tmp_path / "a", CARD)
    with pytest.raises(ExportError, match="in the way"):
        export(elastic, PROFILE, None, tmp_path / "b", CARD)

    assert (theirs / "model.safetensors").read_text() == "half"
    assert not ours.exists()


@pytest.mark.parametrize("edge", ["write_sharded", "model_card"])
def test_a_disk_that_fills_up_leaves_nothing_behind(elastic, tmp_path, monkeypatch, edge):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, edge, full)

    with pytest.raises(ExportError, match="could not be written .*: No space left on device"):
        export(elastic, PROFILE, None, tmp_path / "model", CARD)
    assert_nothing_left(tmp_path)


def test_a_real_refusal_to_write_the_weights_leaves_nothing_behind(elastic, tmp_path):
    said, place = tmp_path / "said", tmp_path / "place"
    place.mkdir()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            export(elastic, PROFILE, None, place / "model", CARD)
        except ExportError as error:
            said.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert "could not be written" in said.read_text() and "File too large" in said.read_text()
    assert_nothing_left(place)


def test_too_little_room_is_said_before_the_weights_are_written(elastic, tmp_path, monkeypatch):
    monkeypatch.setattr(naming.shutil, "disk_usage", lambda _path: _Usage(free=1000))
    monkeypatch.setattr(checkpoint, "write_sharded", lambda *_args, **_options: pytest.fail("wrote all the same"))

    with pytest.raises(ExportError, match=r"needs [\d.]+ [KM]B, and the disk .* has 1\.0 KB left"):
        export(elastic, PROFILE, None, tmp_path / "model", CARD)
    assert_nothing_left(tmp_path)


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_without_write_permission_the_sentence_names_the_folder(elastic, tmp_path):
    directory = tmp_path / "locked"
    directory.mkdir(mode=0o555)
    root = os.geteuid() == 0
    try:
        if root:  # permissions do not bind root
            os.seteuid(65534)
        with pytest.raises(ExportError, match="Nothing can be written beside .*: Permission denied"):
            export(elastic, PROFILE, None, directory / "model", CARD)
    finally:
        if root:
            os.seteuid(0)
    assert_nothing_left(directory)


def test_a_file_where_a_folder_is_needed_is_an_export_error(elastic, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ExportError, match="Not a directory|File exists"):
        export(elastic, PROFILE, None, tmp_path / "file" / "model", CARD)


def test_an_interrupt_leaves_nothing_behind(elastic, tmp_path, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_sharded", interrupt)

    with pytest.raises(KeyboardInterrupt):
        export(elastic, PROFILE, None, tmp_path / "model", CARD)
    assert_nothing_left(tmp_path)
