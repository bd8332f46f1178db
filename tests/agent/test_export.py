"""`export --format gguf` of a finished run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from main import main
from tests.tiny import tiny_folder

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4"),
    *("--evaluations", "3", "--offspring", "2", "--initial", "1", "--population", "2", "--benchmarks", "0"),
    *("--sparsity", "0.3", "--brain", "first", "--dtype", "float32", "--no-export"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of a tiny model."""
    place = tmp_path_factory.mktemp("gguf")
    model = tiny_folder(place / "tiny")
    assert main(["--model", str(model), "--runs", str(place / "runs"), "--cache", str(place / "cache"), *SMALL]) == 0
    (folder,) = (place / "runs").glob("tiny-*")
    return folder


def test_the_file_has_the_sizes_and_the_weights_of_the_result(run, tmp_path, capfd):
    file = tmp_path / "model.gguf"
    assert main(["export", str(run), "--output", str(file), "--format", "gguf", "--type", "f16"]) == 0
    assert f"llama-cli -m {file}" in capfd.readouterr().out
    reader = gguf.GGUFReader(file)
    result = json.loads((run / "result.json").read_text())
    assert reader.fields["deci.attention.head_count_kv"].contents() == result["attention"]
    unit = 96 // 3  # channels of an MLP unit of the tiny model
    assert reader.fields["deci.feed_forward_length"].contents() == [unit * width for width in result["mlp"]]
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_up.weight"] == "F16" and kinds["blk.0.ffn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--format", "gguf", "--type", "q4_0"], "--type: f32, f16, bf16, got 'q4_0'"),
        (["--format", "onnx"], "--format: transformers or gguf, got 'onnx'"),
        (["--type", "f16"], "--type is for --format gguf"),
        (["--format", "gguf", "--candidate", "c99"], "no candidate 'c99'"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_file(run, tmp_path, capfd, words, sentence):
    assert main(["export", str(run), "--output", str(tmp_path / "model.gguf"), *words]) == 2
    errors = capfd.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_as_it_is(run, tmp_path, capfd):
    file = tmp_path / "model.gguf"
    file.write_text("mine")
    assert main(["export", str(run), "--output", str(file), "--format", "gguf"]) == 2
    assert "exists already" in capfd.readouterr().err
    assert file.read_text() == "mine"
