"""What an engine's process answers, and what is said where it does not: with stand-ins for the Python that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from self_pruner.memory.errors import EngineError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.in_llama_cpp import LlamaRequest, timing_in_llama_cpp
from self_pruner.tools.latency.in_vllm import VllmRequest, timing_in_vllm
from self_pruner.tools.models.families import space_of
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.engines.test_installed import interpreter

REQUEST = {"prompt": 16, "decode": 4, "batch": 2, "repeats": 2}
UNEQUAL = Profile((1, 3, 2), (5, 12, 1))
ANSWER = '{"dense": [[2, 4], [2, 4]], "candidate": [[1, 1], [1, 1]]}'


def timing(engine: str, python: Path, seconds: float = 60.0):
    model = tiny_model("llama")
    space = space_of(model, MLP_UNIT)
    if engine == "vLLM":
        vllm = VllmRequest(python, "transformers", "float32", **REQUEST, seconds=seconds)
        return timing_in_vllm(model.config, space, vllm)
    return timing_in_llama_cpp(model.config, space, LlamaRequest(python, **REQUEST, threads=1, seconds=seconds))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Where what is made for an engine lies."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize("engine", ["llama.cpp", "vLLM"])
def test_one_process_answers_for_every_profile_and_nothing_is_left(tmp_path, engine):
    python = interpreter(
        tmp_path / "python", f"echo started >> {tmp_path}/starts; while read line; do echo '{ANSWER}'; done"
    )
    with timing(engine, python) as timer:
        reports = [timer(UNEQUAL), timer(Profile((4, 4, 4), (1, 1, 1)))]
    for report in reports:
        assert (report.speedup_prefill, report.speedup_decode, report.speedup) == (2.0, 4.0, 3.0)
        assert (report.dense_prefill_ms, report.prefill_ms, report.decode_ms) == (2000.0, 1000.0, 250.0)
    assert (tmp_path / "starts").read_text() == "started\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["python", "starts"]


BAD = {
    "without the package": ("echo 'ImportError: no such module' >&2; exit 1", "ImportError: no such module"),
    "that dies": ("read line; echo 'RuntimeError: out of memory' >&2; kill -9 $$", "RuntimeError: out of memory"),
    "that hangs": ("sleep 60", "no answer within 1 s"),
    "that says something else": ("read line; echo hello", "it answered 'hello'"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("engine", ["llama.cpp", "vLLM"])
def test_an_engine_that_gives_no_answer_is_one_sentence_and_leaves_nothing(tmp_path, engine, case):
    body, sentence = BAD[case]
    python = interpreter(tmp_path / "python", body)
    with (
        timing(engine, python, seconds=0.7) as timer,
        pytest.raises(EngineError, match=f"^{engine} cannot time this model: {sentence}$"),
    ):
        timer(UNEQUAL)
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
