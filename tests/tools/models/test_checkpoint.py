import json
import os
import shutil
import time
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.checkpoint import INDEX, SETTLED, WEIGHTS, digest_of, fingerprint, inspect
from self_pruner.tools.models.families import FAMILIES
from tests.tiny import tiny_folder, tiny_model


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    base = tmp_path_factory.mktemp("checkpoints")
    tiny_folder(base / "whole", tokenizer=False)
    tiny_model("llama").save_pretrained(base / "sharded", max_shard_size="100KB")
    return base


@pytest.fixture
def whole(originals, tmp_path):
    return shutil.copytree(originals / "whole", tmp_path / "model")


@pytest.fixture
def sharded(originals, tmp_path):
    return shutil.copytree(originals / "sharded", tmp_path / "model")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_whole_and_sharded_folders_pass(whole, originals):
    assert inspect(whole).family == FAMILIES["llama"]
    assert inspect(whole).shards == (whole / WEIGHTS,)
    assert len(inspect(originals / "sharded").shards) > 2


def test_folder_without_config(whole):
    (whole / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        inspect(whole)


@pytest.mark.parametrize("content", ["", "{", "[]", '"llama"', "\xff"])
def test_config_that_is_no_object(whole, content):
    (whole / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match="JSON"):
        inspect(whole)


def test_unsupported_family(whole):
    edit_config(whole, model_type="gemma3_text", architectures=["Gemma3ForCausalLM"])
    with pytest.raises(ModelError, match="'gemma3_text'.*llama, mistral, qwen2, qwen3"):
        inspect(whole)


@pytest.mark.parametrize("kept", [0, 5, 8, 200, -1])
def test_truncated_safetensors(whole, kept):
    content = (whole / WEIGHTS).read_bytes()
    (whole / WEIGHTS).write_bytes(content[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated"):
        inspect(whole)


def test_safetensors_with_trailing_bytes(whole):
    with open(whole / WEIGHTS, "ab") as opened:
        opened.write(b"x")
    with pytest.raises(ModelError, match="damaged"):
        inspect(whole)


@pytest.mark.parametrize("header", [b"no json at all", b"[1, 2]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}'])
def test_file_that_is_no_safetensors(whole, header):
    (whole / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="no safetensors file"):
        inspect(whole)


def test_tensor_whose_bytes_do_not_fit_its_shape(whole):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (whole / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match="'a' does not have the size of its shape"):
        inspect(whole)


def test_index_that_names_a_missing_shard(sharded):
    victim = inspect(sharded).shards[1]
    victim.unlink()
    with pytest.raises(ModelError, match=f"names '{victim.name}'"):
        inspect(sharded)


def test_shard_that_lacks_a_tensor_of_the_index(sharded):
    shard = inspect(sharded).shards[0]
    tensors = load_file(shard)
    tensors.popitem()
    save_file(tensors | {"another": torch.zeros(1)}, shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{shard.name} lacks the tensor"):
        inspect(sharded)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_index_that_cannot_be_read(sharded, content):
    (sharded / INDEX).write_text(content)
    with pytest.raises(ModelError, match="weight_map"):
        inspect(sharded)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickled_weights_are_refused_unread(whole, name):
    (whole / WEIGHTS).unlink()
    (whole / name).write_bytes(b"never read")
    with pytest.raises(ModelError, match="safetensors"):
        inspect(whole)


def test_pickle_beside_safetensors_does_no_harm(whole):
    (whole / "training_args.bin").write_bytes(b"never read")
    assert inspect(whole).shards == (whole / WEIGHTS,)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "model.Q4_1.gguf"])
def test_folder_without_model_weights(whole, name):
    (whole / WEIGHTS).rename(whole / name)
    with pytest.raises(ModelError, match=f"has no weights.*{name}"):
        inspect(whole)


def test_quantised_config_is_refused(whole):
    edit_config(whole, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match="'gptq'"):
        inspect(whole)


def test_integer_weights_are_refused(whole):
    tensors = load_file(whole / WEIGHTS)
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, whole / WEIGHTS)
    with pytest.raises(ModelError, match="I8"):
        inspect(whole)


def test_fingerprint_is_the_same_wherever_the_folder_lies(whole, originals):
    edit_config(whole, transformers_version="0.0.0")
    assert fingerprint(inspect(whole)) == fingerprint(inspect(originals / "whole"))


@pytest.mark.parametrize("hashed_whole", [0, 1 << 30])
def test_fingerprint_tells_weights_and_config_apart(whole, monkeypatch, hashed_whole):
    monkeypatch.setattr("self_pruner.tools.models.checkpoint.HASHED_WHOLE", hashed_whole)
    seen = {fingerprint(inspect(whole))}
    tensors = load_file(whole / WEIGHTS)
    tensors["model.layers.2.mlp.down_proj.weight"][0, 0] += 1
    save_file(tensors, whole / WEIGHTS, metadata={"format": "pt"})
    seen.add(fingerprint(inspect(whole)))
    edit_config(whole, rms_norm_eps=0.5)
    seen.add(fingerprint(inspect(whole)))
    assert len(seen) == 3


def test_what_has_not_changed_is_digested_once_and_what_has_anew(whole, monkeypatch):
    read = Mock(side_effect=open)
    monkeypatch.setattr("self_pruner.tools.models.checkpoint.open", read, raising=False)
    clock = Mock(time_ns=lambda: time.time_ns() + 2 * SETTLED)  # its files were written long ago
    monkeypatch.setattr("self_pruner.tools.models.checkpoint.time", clock)
    first = digest_of(whole)
    assert digest_of(whole) == fingerprint(inspect(whole)) == first and read.call_count == 1
    before, content = (whole / WEIGHTS).stat(), (whole / WEIGHTS).read_bytes()
    (whole / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(whole / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy with its times does
    assert digest_of(whole) != first and read.call_count == 2
    os.rename(shutil.copy2(whole / WEIGHTS, whole / "aside"), whole / WEIGHTS)
    digest_of(whole)
    assert read.call_count == 3
    edit_config(whole, rms_norm_eps=0.5)
    assert digest_of(whole) != first


def test_what_was_written_just_now_is_read_each_time(whole, monkeypatch):
    read = Mock(side_effect=open)
    monkeypatch.setattr("self_pruner.tools.models.checkpoint.open", read, raising=False)
    (whole / WEIGHTS).touch()
    assert digest_of(whole) == digest_of(whole) and read.call_count == 2  # a change may not show yet


OPTIONS = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen3": {"attention_bias": True}}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_what_a_family_saves_is_what_its_config_declares(family, options, tmp_path):
    tiny_folder(tmp_path / "m", family, tokenizer=False, **options.get(family, {}))
    assert inspect(tmp_path / "m").family == FAMILIES[family]


def test_tensors_that_the_config_does_not_declare_are_refused(tmp_path):
    tiny_folder(tmp_path / "m", tokenizer=False, attention_bias=True)
    edit_config(tmp_path / "m", attention_bias=False)
    with pytest.raises(ModelError, match=r"12 in all: 'model\.layers\.0\.self_attn\.k_proj\.bias', .*q_proj"):
        inspect(tmp_path / "m")


def test_tables_of_positions_may_be_stored(whole):
    tensors = load_file(whole / WEIGHTS)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, whole / WEIGHTS, metadata={"format": "pt"})
    assert inspect(whole).family == FAMILIES["llama"]


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_a_tied_head_may_be_stored_as_a_copy_and_not_as_another(whole, moved):
    edit_config(whole, tie_word_embeddings=True)
    tensors = load_file(whole / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].to(torch.float64)
    tensors["lm_head.weight"][-1] += moved
    save_file(tensors, whole / WEIGHTS, metadata={"format": "pt"})
    if moved:
        with pytest.raises(ModelError, match=r"lm_head\.weight .*tie_word_embeddings: say false"):
            inspect(whole)
    else:
        assert inspect(whole).config["tie_word_embeddings"]
