import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.tools.models.aliases import ALIASES, BUNDLED, names
from self_pruner.tools.models.checkpoint import WEIGHTS
from self_pruner.tools.models.source import HUB_ID, ModelSource, load, resolve
from tests.tiny import FAMILY_NAMES, tiny_folder, tiny_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "tiny-llama")


def load_cpu(folder, dtype="float32"):
    return load(resolve(str(folder)), device="cpu", dtype=dtype)


def test_aliases_are_lower_case_and_stand_for_hub_ids():
    assert all(alias == alias.lower() and HUB_ID.fullmatch(hub_id) for alias, hub_id in ALIASES.items())
    assert {"llama-2-7b", "llama-2-70b", "llama-3.1-8b", "mistral-7b", "qwen2.5-0.5b", "smollm2-360m"} <= set(names())
    assert BUNDLED not in ALIASES


def test_names_are_resolved_by_kind(folder):
    assert resolve("SmolLM2-135M") == ModelSource("smollm2-135m", "bundled", "")
    assert resolve("llama-2-70b") == ModelSource("llama-2-70b", "hub", "meta-llama/Llama-2-70b-hf")
    assert resolve("Qwen/Qwen3-0.6B", "abc") == ModelSource("Qwen3-0.6B", "hub", "Qwen/Qwen3-0.6B", "abc")
    assert resolve(str(folder)) == ModelSource("tiny-llama", "folder", str(folder))


def test_a_relative_folder_is_named_after_itself(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert resolve(".") == ModelSource("tiny-llama", "folder", str(folder))


@pytest.mark.parametrize(
    ("name", "close"), [("lama-2-7b", "llama-2-7b"), ("qwen-2.5-7b", "qwen2.5-7b"), ("SmolLM-135", BUNDLED)]
)
def test_unknown_alias_names_close_matches(name, close):
    with pytest.raises(ModelError, match=f"did you mean .*'{close}'"):
        resolve(name)


def test_an_alias_like_nothing_gets_the_whole_list():
    with pytest.raises(ModelError, match="known aliases: smollm2-135m, .*llama-3.1-70b"):
        resolve("zzz")


@pytest.mark.parametrize("name", ["./nowhere", "/no/where/at/all", "a/b/c", "", "org/na me", "../x"])
def test_names_that_stand_for_nothing(name):
    with pytest.raises(ModelError, match="an alias, a folder or a hub id"):
        resolve(name)


def test_a_file_is_no_model(folder):
    with pytest.raises(ModelError, match="is a file"):
        resolve(str(folder / WEIGHTS))


def test_a_revision_is_for_the_hub_only(folder):
    for name in ("smollm2-135m", str(folder)):
        with pytest.raises(SettingsError, match="only models on the hub"):
            resolve(name, "main")


def test_a_bad_folder_is_refused_before_anything_is_loaded(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(ModelError):
        resolve(str(folder))
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError):
        resolve(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError):
        resolve(str(folder))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_loaded_model_computes_what_was_saved(family, tmp_path, original):
    original_model = tiny_model(family, seed=3)
    original_model.save_pretrained(tmp_path / "m", max_shard_size="60KB")
    for file in original.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "m")
    loaded = load_cpu(tmp_path / "m")
    ids = torch.arange(40).view(2, 20)
    assert torch.equal(loaded.model(ids).logits, original_model(ids).logits)
    assert loaded.family.model_type == family
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == "sdpa"


def test_dtype_is_as_asked_or_as_saved(folder):
    assert load_cpu(folder, "bfloat16").model.dtype == torch.bfloat16
    assert load_cpu(folder, "auto").model.dtype == torch.float32
    with pytest.raises(SettingsError, match="'int4'.*bfloat16"):
        load_cpu(folder, "int4")


def test_loading_is_silent(folder, capfd):
    load_cpu(folder)
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_without_one_of_the_weights_is_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_cpu(folder)


def test_a_checkpoint_with_a_weight_of_another_shape_is_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        load_cpu(folder)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer"):
        load_cpu(tiny_folder(tmp_path / "m", tokenizer=False))
