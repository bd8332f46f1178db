"""Latency in real vLLM: profiles without weights beside the dense model, tables of them, and a run that is timed there.

The engine lives in an environment of its own; SELF_PRUNER_VLLM_PYTHON names its Python.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import shapes
from main import main
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.memory.errors import EngineError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.in_vllm import VllmRequest, timing_in_vllm
from self_pruner.tools.latency.table import Timed, measure_table
from self_pruner.tools.models.families import space_of
from tests.tiny import tiny_folder, tiny_model

PYTHON = os.environ.get("SELF_PRUNER_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_VLLM_PYTHON names no Python with vLLM"),
]
SHAPE = {"head_dim": 32, "hidden_size": 128, "intermediate_size": 192}  # the smallest that vLLM takes on a CPU
REQUEST = {"dtype": "float32", "prompt": 16, "decode": 4, "batch": 2, "repeats": 2, "eager": True}


def request(**changes) -> VllmRequest:
    return VllmRequest(**{"python": Path(PYTHON or ""), "serving": "transformers", **REQUEST, **changes})


def test_one_process_times_many_profiles_and_makes_a_table():
    model = tiny_model("llama", **SHAPE)
    space = space_of(model, 96, False, 1)  # few widths
    timed = Timed("tiny", 3, {"attention": 4, "mlp": 2}, 96, 1, "vLLM", "cpu", "float32", 16, 4, 2)
    with timing_in_vllm(model.config, space, request()) as timer:
        report = timer(Profile((1, 3, 2), (1, 2, 1)))
        table = measure_table(space, timed, timer, foreign=True)
    assert report.repeats == 2 and report.batch == 2 and report.prompt_tokens == 16
    assert min(report.prefill_ms, report.decode_ms, report.dense_prefill_ms, report.dense_decode_ms) > 0
    assert sorted(table.rows["attention"]) == [1, 2, 3, 4] and sorted(table.rows["mlp"]) == [1, 2]
    assert table.predict(space.dense()).prefill == pytest.approx(table.dense.prefill + table.offset.prefill)


def test_where_two_models_do_not_fit_the_dense_one_is_timed_before():
    model = tiny_model("llama", **SHAPE)
    space = space_of(model, 32, False, 4)
    with timing_in_vllm(model.config, space, request(serving="vllm-native", together=False)) as timer:
        first, second = (timer(Profile((1, 1, 1), mlp)) for mlp in ((1, 3, 2), (2, 2, 2)))
    assert first.dense_prefill_ms == second.dense_prefill_ms > 0
    assert first.repeats == 2 and second.prefill_ms > 0


def test_what_vllm_refuses_is_one_sentence():
    model = tiny_model("llama")  # heads of 16
    with (
        timing_in_vllm(model.config, space_of(model, 8, False, 1), request()) as timer,
        pytest.raises(EngineError, match="vLLM cannot time this model: .*head_dim=16"),
    ):
        timer(Profile((1, 1, 1), (1, 1, 1)))


def test_shapes_are_timed_whole(tmp_path, capfd):
    model = tiny_folder(tmp_path / "tiny", tokenizer=False, **SHAPE)
    words = ["--model", str(model), "--engine", "vllm", "--vllm-python", str(PYTHON)]
    words += ["--latency-prompt", "16", "--latency-decode", "4", "--latency-repeats", "1"]
    words += ["--dtype", "float32", "--mlp-unit", "32"]
    assert shapes.main([*words, "--params", "400K"]) == 0, capfd.readouterr().err
    printed = " ".join(capfd.readouterr().out.split())
    assert "all 3 layers, vLLM 0.32 (transformers) on" in printed and "of what its parameters promise" in printed
    assert shapes.main([*words, "--params", "400K", "--layers", "2"]) == 2
    assert "vllm runs whole models" in capfd.readouterr().err


def test_a_run_is_timed_where_it_will_serve(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")  # as the test above has it compiled
    model = tiny_folder(tmp_path / "tiny", **SHAPE)
    words = (
        f"--model {model} --runs {tmp_path / 'runs'} --cache {tmp_path / 'cache'} --engine vllm --vllm-python {PYTHON} "
        "--sequence-length 64 --fidelity 64 --probe-tokens 64 --final-tokens 64 --reporting-tokens 64 --arm uniform "
        "--calibration-length 64 --calibration-sequences 2 --no-recalibrate --no-export --dtype float32 "
        "--sparsity 0.3 --latency-prompt 16 --latency-decode 4 --latency-repeats 1"
    )
    assert main(words.split()) == 0, capfd.readouterr().err
    (path,) = (tmp_path / "runs").glob("tiny-*")
    outcome = read_outcome(path)
    assert "vLLM 0.32 (transformers)" in outcome.latency_setting
    assert outcome.row("found").speedup > 0 and outcome.row("dense").prefill_ms > 0
