"""GGUF files as they lie on the disk: names, shapes, rows, types, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import gguf
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from self_pruner.memory.errors import ExportError, ModelError
from self_pruner.memory.partials import owner
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.gguf import file as gguf_file
from self_pruner.tools.export.gguf import tokenizer as gguf_tokenizer
from self_pruner.tools.export.gguf.file import GgufFacts, check_gguf, write_gguf
from self_pruner.tools.export.gguf.tokenizer import split_rules
from self_pruner.tools.export.gguf.weights import cut, interleaved, read, rope_factors
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_tensors
from tests.tiny import MLP_UNIT, bundled_tokenizer, tiny_config, tiny_model

PROFILE = Profile((3, 1, 4), (5, 12, 1))
LLAMA_3_ROPE = {
    **{"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 512},
}
FACTS = GgufFacts("tiny-30-pruned", "org/tiny", 0.3, "apache-2.0")


@pytest.fixture(scope="module")
def tokenizer():
    return bundled_tokenizer(4096)


def elastic_model(tokenizer, family: str = "llama", dtype: torch.dtype = torch.float32, **options) -> ElasticModel:
    model = tiny_model(family, vocab_size=len(tokenizer), dtype=dtype, **options)
    text = torch.randint(0, len(tokenizer), (8, 32), generator=torch.Generator().manual_seed(0))
    return ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)


@pytest.fixture(scope="module")
def elastic(tokenizer) -> ElasticModel:
    return elastic_model(tokenizer)


def values(reader: gguf.GGUFReader, key: str):
    return reader.fields[key].contents()


def test_it_states_every_layer_and_holds_every_tensor(elastic, tokenizer, tmp_path):
    written = write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)

    reader = gguf.GGUFReader(written.path)
    assert values(reader, "general.architecture") == "deci"
    assert values(reader, "deci.attention.head_count") == [6, 2, 8]
    assert values(reader, "deci.attention.head_count_kv") == [3, 1, 4]
    assert values(reader, "deci.feed_forward_length") == [40, 96, 8]
    assert values(reader, "deci.attention.key_length") == values(reader, "deci.rope.dimension_count") == 16
    assert values(reader, "general.license") == "apache-2.0"
    shapes = {tensor.name: list(map(int, tensor.shape))[::-1] for tensor in reader.tensors}
    assert len(shapes) == 3 + 9 * 3
    assert shapes["blk.0.attn_q.weight"] == [96, 64]
    assert shapes["blk.1.ffn_down.weight"] == [64, 96]
    assert shapes["output.weight"] == [len(tokenizer), 64]
    assert written.type == "f32" and written.bytes == written.path.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_tied_head_is_left_out(tokenizer, tmp_path):
    written = write_gguf(cut(elastic_model(tokenizer, tied=True), PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    assert "output.weight" not in {tensor.name for tensor in gguf.GGUFReader(written.path).tensors}


@pytest.mark.parametrize(("dtype", "type"), [(torch.bfloat16, "bf16"), (torch.float16, "f16")])
def test_weights_keep_their_type_and_their_bits_and_vectors_are_f32(tokenizer, tmp_path, dtype, type):
    elastic = elastic_model(tokenizer, dtype=dtype)
    written = write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(written.path).tensors}
    down = dict(smaller_tensors(elastic, PROFILE))["model.layers.1.mlp.down_proj.weight"]
    assert written.type == type
    assert tensors["blk.1.ffn_down.weight"].data.tobytes() == down.view(torch.uint8).numpy().tobytes()
    assert tensors["blk.1.ffn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32


def test_interleaving_puts_the_partners_of_a_rotation_side_by_side():
    rows = torch.arange(8)[:, None]  # two heads of four: transformers turns 0 with 2 and 1 with 3
    assert interleaved(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleaved(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]  # biases


def test_scaled_frequencies_become_factors(tokenizer):
    scaling = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    factors = rope_factors(tiny_config("llama", rope_parameters=scaling))
    assert factors.tolist() == pytest.approx([4.0] * 8)
    assert rope_factors(tiny_config("llama")) is None


@pytest.mark.parametrize(
    "config, sentence",
    [
        (tiny_config("qwen3"), "layer 0 of a qwen3 model: it has no norms"),
        (tiny_config("llama", hidden_act="gelu"), "layer 0: its MLP has the activation 'gelu'"),
        (tiny_config("mistral", sliding_window=64), "layer 0: its attention slides over 64 tokens"),
        (
            tiny_config("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            "layer 0: its rotary embedding is scaled by 'dynamic'",
        ),
    ],
)
def test_what_deci_cannot_express_is_refused(config, sentence):
    with pytest.raises(ExportError, match=sentence):
        check_gguf(config)


def test_a_weight_beyond_the_range_of_f16_is_said_and_nothing_is_left(tokenizer, tmp_path):
    elastic = elastic_model(tokenizer)
    elastic.model.model.embed_tokens.weight[0, 0] = 1e6
    with pytest.raises(ExportError, match="token_embd.weight holds numbers beyond the range of f16: .* bf16 or f32"):
        write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS, type="f16")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_and_a_strangers_are_left_and_a_killed_exports_is_removed(elastic, tokenizer, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        write_gguf(cut(elastic, PROFILE), tokenizer, path, FACTS)
    assert path.read_text() == "mine"
    path.unlink()
    stranger = tmp_path / "model.gguf.partial"
    stranger.write_text("mine")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    killed = tmp_path / f".model.gguf.{owner(gone.pid)}.partial"
    killed.write_bytes(b"GGUF and then it was killed")
    (tmp_path / f".model.gguf.{owner(os.getpid())}.partial").symlink_to(stranger)
    assert write_gguf(cut(elastic, PROFILE), tokenizer, path, FACTS).path == path
    assert sorted(tmp_path.iterdir()) == [path, stranger] and stranger.read_text() == "mine"


def test_a_file_that_reads_back_as_something_else_is_not_kept(elastic, tokenizer, tmp_path, monkeypatch):
    write = gguf_file._write

    def spoilt(*arguments):
        sums = write(*arguments)
        return {**sums, "blk.0.attn_q.weight": 0}

    monkeypatch.setattr(gguf_file, "_write", spoilt)
    with pytest.raises(ExportError, match="reads back as something else: blk.0.attn_q.weight"):
        write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_no_name_while_it_is_read_again(elastic, tokenizer, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gguf_file, "_compare", lambda path, *_args: seen.append([p.name for p in tmp_path.iterdir()]))
    write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    assert seen == [[f".model.gguf.{owner(os.getpid())}.partial"]]


def test_too_little_room_is_said_before_anything_is_written(elastic, tokenizer, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(ExportError, match="has 1 bytes left"):
        write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    assert list(tmp_path.iterdir()) == []


LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
LLAMA_3 = LETTERS + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "use_regex": True}
PLAIN_BYTES = {"type": "ByteLevel", "use_regex": False}


def definition(*steps: dict) -> dict:
    return {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


@pytest.mark.parametrize(
    "tokenizer_json, name",
    [
        (definition(BYTES), "gpt-2"),
        ({"model": {"type": "BPE"}, "pre_tokenizer": BYTES}, "gpt-2"),
        (definition({"type": "Digits", "individual_digits": True}, BYTES), "smollm"),
        (definition(split(LLAMA_3), PLAIN_BYTES), "llama-bpe"),
        (definition(split(LLAMA_3.replace("{1,3}", "")), PLAIN_BYTES), "qwen2"),
        ({"model": {"type": "BPE", "byte_fallback": True}, "pre_tokenizer": None}, "llama"),
    ],
)
def test_the_rules_are_recognised_by_their_form(tokenizer_json, name):
    assert split_rules(tokenizer_json) == name


@pytest.mark.parametrize(
    "tokenizer_json",
    [
        {"model": {"type": "WordPiece"}},
        definition(split(r"\d+"), PLAIN_BYTES),
        definition({"type": "Digits", "individual_digits": False}, BYTES),
        {"model": {"type": "BPE"}, "pre_tokenizer": None},
    ],
)
def test_rules_without_a_name_are_refused(tokenizer_json):
    with pytest.raises(ExportError, match="llama.cpp"):
        split_rules(tokenizer_json)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """BPE that falls back to bytes, with a space in front, as Llama 2's."""
    tokens = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokens.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokens.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens.train_from_iterator(
        ["the cat sat on the mat and the dog sat on the log"] * 20,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_sentencepiece_gets_byte_tokens_and_scores_in_the_order_of_its_merges(tmp_path):
    tokenizer = sentencepiece_like()
    elastic = elastic_model(tokenizer)
    written = write_gguf(cut(elastic, PROFILE), tokenizer, tmp_path / "model.gguf", FACTS)
    reader = gguf.GGUFReader(written.path)
    assert values(reader, "tokenizer.ggml.model") == "llama"
    assert values(reader, "tokenizer.ggml.add_space_prefix") is True
    kinds, scores = values(reader, "tokenizer.ggml.token_type"), values(reader, "tokenizer.ggml.scores")
    vocab = tokenizer.get_vocab()
    assert kinds[vocab["<0x41>"]] == gguf.TokenType.BYTE
    merges = gguf_tokenizer.tokenizer_definition(tokenizer)["model"]["merges"]
    merged = [scores[vocab["".join(merge)]] for merge in merges]
    assert merged == sorted(merged, reverse=True) and len(merged) > 20
    assert min(merged) > scores[vocab["t"]]


def test_a_token_that_the_model_does_not_know_is_named():
    tokenizer = sentencepiece_like()
    known, writer = len(tokenizer), gguf.GGUFWriter(None, "llama")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ExportError, match=rf"'\[PAD\]' is token {known}, and the model knows {known}: llama.cpp"):
        gguf_tokenizer.add_tokenizer(writer, tokenizer, known)


@pytest.mark.parametrize(
    ("family", "compensation", "serving", "options"),
    [
        ("llama", "lstsq", "transformers", {"tied": True}),
        ("llama", "bias", "transformers", {}),
        ("llama", "lstsq", "transformers", {"attention_bias": True, "mlp_bias": True}),
        ("llama", "lstsq", "transformers", {"rope_parameters": LLAMA_3_ROPE}),
        ("mistral", "lstsq", "vllm", {"dtype": torch.bfloat16}),
        ("qwen2", "bias", "transformers", {}),
        ("qwen2", "lstsq", "uniform", {}),
    ],
)
def test_a_folder_and_the_elastic_model_it_was_cut_from_make_the_same_file(
    tokenizer, tmp_path, family, compensation, serving, options
):
    model = tiny_model(family, vocab_size=len(tokenizer), **options)
    text = torch.randint(0, len(tokenizer), (8, 32), generator=torch.Generator().manual_seed(0))
    elastic = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT, compensation=compensation)
    profile = Profile((2, 2, 2), (5, 5, 5)) if serving == "uniform" else PROFILE
    card = CardFacts("org/tiny", family, 0.3, (), "text", "python main.py")
    folder = export(elastic, profile, tokenizer, tmp_path / "model", card, serving=serving)
    files = [
        write_gguf(weights, tokenizer, tmp_path / f"{name}.gguf", FACTS).path.read_bytes()
        for name, weights in (("cut", cut(elastic, profile)), ("read", read(folder)))
    ]
    assert files[0] == files[1]


def test_a_folder_whose_tensors_are_not_those_of_its_config_is_refused(elastic, tmp_path):
    card = CardFacts("org/tiny", "llama", 0.3, (), "text", "python main.py")
    folder = export(elastic, PROFILE, None, tmp_path / "model", card)
    config = json.loads((folder / "config.json").read_text())
    config["per_layer_config"]["1"]["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="tensors that do not fit its config: model.layers.1.mlp.down_proj"):
        read(folder)
    config["num_hidden_layers"] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="num_hidden_layers must be a whole number from 1 to 1,000"):
        read(folder)
