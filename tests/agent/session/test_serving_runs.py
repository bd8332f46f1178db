"""Whole runs for every serving format: all candidates are expressible, and the checkpoint is of that format."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from self_pruner.memory.records import Candidate
from self_pruner.memory.store import Memory
from tests.tiny import tiny_folder

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *(
        "--sensitivity-tokens",
        "64",
        "--reporting-tokens",
        "128",
        "--calibration-length",
        "64",
        "--calibration-sequences",
        "4",
    ),
    *("--evaluations", "6", "--offspring", "3", "--initial", "2", "--population", "2", "--benchmarks", "0"),
    *("--brain", "uniform", "--no-recalibrate"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model whose 192 channels are three aligned MLP units."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", intermediate_size=192)


@pytest.fixture
def run(carried_out):
    return lambda *words: carried_out(*SMALL, *words)


def made(tmp_path: Path) -> tuple[Path, list[Candidate]]:
    """The one run and its candidates."""
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    path = tmp_path / "runs" / "memory.sqlite"
    with closing(sqlite3.connect(path)) as database:
        (context,) = database.execute("SELECT context FROM context").fetchone()
    with Memory(path, context, {}) as memory:
        return folder, memory.recall(Candidate)


def config_of(folder: Path) -> dict:
    return json.loads((folder / "model" / "config.json").read_text())


def test_vllm_gets_head_counts_that_divide_and_aligned_widths(run, tmp_path):
    status, printed, errors = run("--target", "vllm", "--tensor-parallel", "2", "--sparsity", "0.3")
    assert status == 0, errors
    folder, candidates = made(tmp_path)
    assert len(candidates) >= 5
    assert all(set(one.profile.attention) <= {1, 2} and set(one.profile.mlp) <= {1, 2, 3} for one in candidates)
    layers = config_of(folder)["per_layer_config"].values()
    assert all(layer["num_key_value_heads"] % 2 == 0 and layer["intermediate_size"] % 64 == 0 for layer in layers)
    card = (folder / "model" / "README.md").read_text()
    assert "vllm serve . --trust-remote-code --model-impl transformers --tensor-parallel-size 2" in card
    assert "--target vllm --tensor-parallel 2" in card
    assert "vllm serve . --trust-remote-code --model-impl transformers --tensor-parallel-size 2" in printed
    assert "Key/value groups of 4" in card


def test_vllm_native_leaves_attention_whole(run, tmp_path):
    status, printed, errors = run("--target", "vllm-native", "--sparsity", "0.3")
    assert status == 0, errors
    folder, candidates = made(tmp_path)
    assert len({one.profile.mlp for one in candidates}) >= 3
    config = config_of(folder)
    assert config["architectures"] == ["DeciLMForCausalLM"]
    assert {layer["num_key_value_heads"] for layer in config["per_layer_config"].values()} == {4}
    widths = [layer["intermediate_size"] for layer in config["per_layer_config"].values()]
    assert len(set(widths)) > 1 or sum(widths) == 3 * 128


def test_uniform_measures_every_split_and_ends_in_a_stock_checkpoint(run, tmp_path):
    status, printed, errors = run("--target", "uniform", "--mlp-unit", "8", "--sparsity", "0.3")
    assert status == 0, errors
    folder, candidates = made(tmp_path)
    profiles = [one.profile for one in candidates]
    assert {profile.attention[0] for profile in profiles} == {1, 2, 4}  # three do not divide the hidden size
    assert all(len({*profile.attention}) == len({*profile.mlp}) == 1 for profile in profiles)
    assert "every profile of one width is measured" in printed and "trust_remote_code" not in printed
    result = json.loads((folder / "result.json").read_text())
    assert result["spent"]["evaluations"] == len(profiles) == 3
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.intermediate_size == 8 * result["mlp"][0]
    assert "trust_remote_code=True" not in (folder / "model" / "README.md").read_text()


def test_a_dry_run_counts_every_split(run):
    status, printed, errors = run("--target", "uniform", "--mlp-unit", "8", "--sparsity", "0.3", "--dry-run")
    assert status == 0, errors
    assert "3 evaluations" in printed or "3 candidates" in printed


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--target", "vllm", "--mlp-unit", "32"], "keeps MLP widths at multiples of 64"),
        (["--target", "vllm", "--tensor-parallel", "8"], "does not divide the model's 4 KV heads"),
        (["--target", "vllm-native", "--compensation", "bias"], "no biases for --compensation bias"),
        (
            ["--target", "uniform", "--arm", "hybrid"],
            "--arm uniform measures all of them: hybrid has nothing to search",
        ),
        (["--target", "uniform", "--sparsity", "0.85"], "cannot be reached: this model can keep"),
        (["--target", "elsewhere"], "--target"),
        (["--tensor-parallel", "2"], "--tensor-parallel is for --target vllm, vllm-native or uniform"),
    ],
)
def test_what_a_format_cannot_express_leaves_no_run_behind(run, tmp_path, words, sentence):
    status, printed, errors = run(*words)
    assert status == 2
    assert sentence in errors and errors.count("\n") == 1
    assert not list((tmp_path / "runs").glob("tiny-*"))
