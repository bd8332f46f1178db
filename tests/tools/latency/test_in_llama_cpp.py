"""Latency in real llama.cpp: files of random weights beside the dense model, tables of them, a run that is timed there.

The engine lives in an environment of its own; SELF_PRUNER_LLAMA_PYTHON names its Python. What goes wrong with it is
tried without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import gguf
import pytest

from main import main
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.in_llama_cpp import LlamaRequest, timing_in_llama_cpp, write_shape
from self_pruner.tools.latency.table import Timed, measure_table
from self_pruner.tools.models.families import geometry, space_of
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.engines.test_installed import interpreter

PYTHON = os.environ.get("SELF_PRUNER_LLAMA_PYTHON")
REQUEST = {"prompt": 16, "decode": 4, "batch": 2, "repeats": 2, "threads": 1}
UNEQUAL = Profile((1, 3, 2), (5, 12, 1))
SMALL = [
    *("--sequence-length", "64", "--fidelity", "64", "--probe-tokens", "64", "--final-tokens", "64"),
    *("--reporting-tokens", "64", "--arm", "uniform", "--calibration-length", "64", "--calibration-sequences", "2"),
    *("--no-recalibrate", "--no-export", "--dtype", "float32", "--sparsity", "0.3", "--latency-prompt", "16"),
    *("--latency-decode", "4", "--latency-repeats", "1"),
]


def real(case):
    skip = pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_LLAMA_PYTHON names no Python with llama-cpp-python")
    return pytest.mark.llama_cpp(skip(case))


def request(python: Path | str | None = PYTHON, **changes) -> LlamaRequest:
    return LlamaRequest(**{"python": Path(python or ""), **REQUEST, **changes})


@real
@pytest.mark.parametrize("family, bias, together", [("llama", False, True), ("qwen2", True, False)])
def test_one_process_times_many_profiles(family, bias, together):
    model = tiny_model(family, tied=True)
    space = space_of(model, MLP_UNIT, bias, 1)
    with timing_in_llama_cpp(model.config, space, request(bias=bias, together=together)) as timer:
        reports = [timer(profile) for profile in (UNEQUAL, Profile((4, 4, 4), (1, 1, 1)))]
    for report in reports:
        assert (report.prompt_tokens, report.decode_tokens, report.batch, report.repeats) == (16, 4, 2, 2)
        assert min(report.prefill_ms, report.decode_ms, report.dense_prefill_ms, report.dense_decode_ms) > 0
    alone = reports[0].dense_prefill_ms == reports[1].dense_prefill_ms
    assert alone is not together  # the dense model once, or beside each


@real
def test_it_makes_a_table():
    model = tiny_model("llama", tied=True)
    space = space_of(model, 48, False, 2)
    timed = Timed("tiny", 3, {"attention": 2, "mlp": 2}, 48, 2, "llama.cpp", "cpu", "f16", 16, 4, 2)
    with timing_in_llama_cpp(model.config, space, request()) as timer:
        table = measure_table(space, timed, timer)
    assert sorted(table.rows["attention"]) == [1, 2] and sorted(table.rows["mlp"]) == [1, 2]
    assert table.predict(space.dense()) == table.dense


@real
@pytest.mark.parametrize("engine", ["llama-cpp", "torch"])
def test_a_run_is_timed_where_it_will_serve(small_model, tmp_path, cache, capfd, engine):
    places = ["--model", small_model, "--runs", tmp_path / "runs", "--cache", cache, "--llama-python", PYTHON]
    assert main([str(word) for word in (*places, *SMALL, "--engine", engine)]) == 0, capfd.readouterr().err
    (path,) = (tmp_path / "runs").glob("*-*")
    outcome = read_outcome(path)
    name = "llama.cpp in llama-cpp-python 0.3.36 (f16)"
    assert outcome.row("found").speedup > 0 and outcome.row("dense").prefill_ms > 0
    page = (path / "report.html").read_text()
    if engine == "llama-cpp":
        assert name in outcome.latency_setting and outcome.served is None
        assert name in page
        return
    assert "torch" in outcome.latency_setting and "llama" not in outcome.latency_setting
    assert name in outcome.served.setting and outcome.served.failure is None
    served = {row.name: row for row in outcome.served.rows}
    assert served["dense"].speedup == 1.0 and served["found"].speedup > 0
    assert served["dense"].prefill_ms != outcome.row("dense").prefill_ms
    printed = " ".join(capfd.readouterr().out.split())
    assert "As it is served" in printed and name in printed and "torch" in page and name in page


@pytest.mark.parametrize("bias", [False, True])
def test_a_file_has_the_shapes_of_the_profile_and_random_numbers(tmp_path, bias):
    model = tiny_model("llama", tied=True)
    path = write_shape(tmp_path / "shape.gguf", model.config, space_of(model, MLP_UNIT, bias), UNEQUAL, bias)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    shape = geometry(model.config)
    for layer, (groups, blocks) in enumerate(zip(UNEQUAL.attention, UNEQUAL.mlp, strict=True)):
        queries = tensors[f"blk.{layer}.attn_q.weight"]
        assert list(queries.shape) == [shape.hidden, groups * shape.group_width]
        assert tensors[f"blk.{layer}.ffn_up.weight"].shape[1] == blocks * MLP_UNIT
        assert (f"blk.{layer}.ffn_down.bias" in tensors) is bias
        assert len(set(queries.data[0].tolist())) > shape.hidden // 2
    assert "output.weight" not in tensors and tensors["token_embd.weight"].shape[1] == model.config.vocab_size


def test_what_llama_cpp_cannot_run_is_refused_before_anything_is_written():
    model = tiny_model("qwen3")
    with (
        pytest.raises(ExportError, match="no norms of queries"),
        timing_in_llama_cpp(model.config, space_of(model, MLP_UNIT), request("python")),
    ):
        pass


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--engine", "llama-cpp"], "there is no llama-cpp-python here: install llama-cpp-python==0.3.36"),
        (["--llama-python", "nowhere"], "--llama-python .* is no file"),
    ],
)
def test_a_run_without_the_engine_it_was_told_of_is_refused_at_once(small_model, tmp_path, capfd, words, sentence):
    status = main(["--model", str(small_model), "--runs", str(tmp_path), *SMALL, *words])
    assert status == 2 and re.search(sentence, " ".join(capfd.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


def test_a_result_that_could_not_be_timed_as_it_is_served_is_still_a_result(small_model, tmp_path, cache, capfd):
    python = interpreter(tmp_path / "python", 'case "$1" in -c) echo 0.3.36;; *) echo "OSError: no" >&2; exit 1;; esac')
    places = ["--model", small_model, "--runs", tmp_path / "runs", "--cache", cache, "--llama-python", python]
    assert main([str(word) for word in (*places, *SMALL)]) == 0
    (path,) = (tmp_path / "runs").glob("*-*")
    outcome = read_outcome(path)
    assert outcome.row("found").speedup > 0
    assert outcome.served.failure == "llama.cpp cannot time this model: OSError: no"
    printed = " ".join("".join(capfd.readouterr()).split())
    assert "Not timed in" in printed and "OSError: no" in printed
