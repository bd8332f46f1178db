"""The comparison of two engines itself: ties, differences, an engine that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from self_pruner.memory.errors import EngineError
from tests.tools.export.same_tokens import Comparison, Difference, ask


def test_a_tie_passes_and_another_difference_does_not():
    tie, fault = Difference(2, 5, 1e-5), Difference(7, 0, 0.25)
    assert Comparison("vllm", "transformers", 8, 16, ()).ok
    assert Comparison("vllm", "transformers", 8, 16, (tie,)).ok
    assert not Comparison("vllm", "transformers", 8, 16, (tie, fault)).ok


def test_an_engine_that_fails_is_quoted(tmp_path):
    request = {"folder": str(tmp_path / "none"), "prompts": [[1]], "new_tokens": 1, "dtype": "float32"}
    with pytest.raises(EngineError, match="transformers does not run .*none"):
        ask("transformers", Path(sys.executable), request)
    with pytest.raises(EngineError, match="cannot be run"):
        ask("vllm", tmp_path / "no-python", request)
