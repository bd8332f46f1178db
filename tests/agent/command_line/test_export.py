"""`export` of a finished run: its own result as it lies there, other candidates anew, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest
from transformers import dynamic_module_utils

from main import main
from self_pruner.agent.command_line import export as export_module
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.read_only import read_rows
from tests.foreign import tiny_with_tokenizer_code

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4"),
    *("--evaluations", "3", "--offspring", "2", "--initial", "1", "--population", "2", "--benchmarks", "0"),
    *("--sparsity", "0.3", "--brain", "first", "--dtype", "float32"),
]


pytestmark = pytest.mark.usefixtures("believed")


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> Path:
    """A finished run of a tiny model that wrote no checkpoint."""
    place = tmp_path_factory.mktemp("gguf")
    options = [
        "--model",
        str(model),
        "--runs",
        str(place / "runs"),
        "--cache",
        str(place / "cache"),
        "--no-export",
    ]
    assert main([*options, *SMALL]) == 0
    (folder,) = (place / "runs").glob("tiny-*")
    return folder


@pytest.fixture(scope="module")
def exported(believed, model, tmp_path_factory) -> Path:
    """A finished run of a tiny model with the checkpoint of its result, which is recalibrated."""
    place = tmp_path_factory.mktemp("exported")
    enough = ["--calibration-length", "256", "--calibration-sequences", "64", "--final-tokens", "512"]
    options = ["--model", str(model), "--runs", str(place / "runs"), "--cache", str(place / "cache")]
    assert main([*options, *SMALL, *enough]) == 0
    (folder,) = (place / "runs").glob("tiny-*")
    assert json.loads((folder / "result.json").read_text())["recalibration"]["recalibrated"] is not None
    return folder


@pytest.mark.parametrize("format", ["transformers", "gguf"])
def test_a_runs_own_result_is_the_checkpoint_it_has_written_and_nothing_is_calibrated_again(
    exported, tmp_path, monkeypatch, capfd, format
):
    with monkeypatch.context() as patch:  # what the target model makes anew
        patch.setattr(export_module, "written", lambda *_: None)
        assert main(["export", str(exported), "--output", str(tmp_path / "anew"), "--format", format]) == 0
    capfd.readouterr()
    for name in ("prepare", "recalibrated", "export_candidate"):
        monkeypatch.delattr(export_module, name)  # it would fail if anything were loaded, calibrated or recalibrated
    assert main(["export", str(exported), "--output", str(tmp_path / "own"), "--format", format]) == 0
    if format == "gguf":
        assert (tmp_path / "own").read_bytes() == (tmp_path / "anew").read_bytes()
        return
    assert "largest logit difference" in capfd.readouterr().out
    files = [{path.name: path.read_bytes() for path in (tmp_path / one).iterdir()} for one in ("own", "anew")]
    assert files[0] == files[1]


def test_a_run_that_trusts_its_tokenizers_code_has_its_result_and_exports_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = tiny_with_tokenizer_code(tmp_path / "tiny")
    places = ["--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    assert main(["--model", str(model), *places, "--trust-remote-code", *SMALL]) == 0, capfd.readouterr().err
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    for format in ("transformers", "gguf"):
        words = ["export", str(folder), "--output", str(tmp_path / format), "--format", format, "--yes"]
        assert main(words) == 0, capfd.readouterr().err
    for place in (folder / "model", tmp_path / "transformers"):
        assert (place / "payload.py").is_file() and "tokenizer brings code" in (place / "README.md").read_text()


@pytest.mark.parametrize("format", ["transformers", "gguf"])
def test_a_checkpoint_that_is_not_the_runs_result_or_not_whole_is_refused(exported, tmp_path, capfd, format):
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    words = ["export", str(run), "--output", str(tmp_path / "out"), "--format", format, "--yes"]
    weights, known = run / "model" / "model.safetensors", run / "model" / "self_pruner.json"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert main(words) == 2 and "model.safetensors is truncated" in capfd.readouterr().err
    known.write_text(json.dumps(json.loads(known.read_text()) | {"parameters": 7}))
    assert main(words) == 2 and "is not the checkpoint of this run's result" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_foreign_code_in_a_runs_checkpoint_is_not_copied(exported, tmp_path, capfd):
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    (run / "model" / "extra.py").write_text("import os")
    assert main(["export", str(run), "--output", str(tmp_path / "out"), "--yes"]) == 2
    assert "brings code that is not this version's own (extra.py)" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_file_has_the_sizes_and_the_weights_of_the_result(run, tmp_path, capfd):
    file = tmp_path / "my model.gguf"
    assert main(["export", str(run), "--output", str(file), "--format", "gguf", "--type", "f16"]) == 0
    assert f"Next: llama-cli -m '{file}'\n" in capfd.readouterr().out
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
        ([], "model.gguf would be a folder: add --format gguf"),
        (["--format", "transformers"], "model.gguf would be a folder: add --format gguf"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_file(run, tmp_path, capfd, words, sentence):
    assert main(["export", str(run), "--output", str(tmp_path / "model.gguf"), *words]) == 2
    errors = capfd.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--output", "x"], ["--output", "x.gguf", "--format", "gguf"]])
def test_a_candidate_that_the_run_lacks_is_refused_before_anything_is_loaded(run, tmp_path, monkeypatch, capfd, words):
    monkeypatch.chdir(tmp_path)
    for name in ("prepare", "check_target"):
        monkeypatch.delattr(export_module, name)
    assert main(["export", str(run), "--candidate", "c99", *words]) == 2
    errors = capfd.readouterr().err
    candidates = [row["id"] for row in read_rows(run / "records.sqlite", RunDirectory.open(run).id)["candidate"]]
    assert errors == f"error: there is no candidate 'c99' in this run; it has c1 to c{len(candidates)}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_as_it_is(run, tmp_path, capfd):
    file = tmp_path / "model.gguf"
    file.write_text("mine")
    assert main(["export", str(run), "--output", str(file), "--format", "gguf"]) == 2
    assert "exists already" in capfd.readouterr().err
    assert file.read_text() == "mine"
