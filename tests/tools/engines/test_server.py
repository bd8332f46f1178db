"""How vLLM is started, seen by a Python that writes down what it was called with and fails."""

import pytest

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.server import served


def test_a_server_samples_as_it_is_asked_to_and_not_as_its_checkpoint_says(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexit 1\n')
    python.chmod(0o700)
    with pytest.raises(EngineError), served(python, "some-model", tmp_path / "log", dtype="float32", max_model_len=512):
        pass
    words = (tmp_path / "called").read_text().split()
    assert words[words.index("--generation-config") + 1] == "vllm"
