"""GGUF files in real llama.cpp: the logits, tokens and tokenization of transformers.

The engine lives in an environment of its own; SELF_PRUNER_LLAMA_PYTHON names its Python.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.gguf.file import GgufFacts, write_gguf
from self_pruner.tools.export.gguf.weights import cut
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model

PYTHON = os.environ.get("SELF_PRUNER_LLAMA_PYTHON")
CHILD = Path(__file__).with_name("llama_child.py")
pytestmark = [
    pytest.mark.llama_cpp,
    pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_LLAMA_PYTHON names no Python with llama-cpp-python"),
]
FACTS = GgufFacts("tiny-30-pruned", "org/tiny", 0.3, "apache-2.0")
UNEQUAL = Profile((1, 3, 2), (5, 12, 1))  # other widths in every layer
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TEXTS = (
    "Hello, world!",
    "  two spaces\n\nand\tlines",
    "In 1969, 12.5% of 3,000 people didn't.",
    "Ünïcödé, 日本語 and 🙂",
    "<|im_start|>user\nHi<|im_end|>\n",
)


def ask(file: Path, prompts: list[list[int]], new_tokens: int = 8) -> dict:
    request, answer = file.with_suffix(".request"), file.with_suffix(".answer")
    request.write_text(json.dumps({"prompts": prompts, "new_tokens": new_tokens, "texts": TEXTS}))
    child = subprocess.run(
        [str(PYTHON), str(CHILD), str(file), str(request), str(answer)], capture_output=True, text=True, timeout=900
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(answer.read_text())


def assert_same(found: dict, elastic: ElasticModel, profile: Profile, prompts: list[list[int]]) -> None:
    """Logits within a hundredth of the largest one, and the same greedy tokens."""
    for prompt, logits, written in zip(prompts, found["logits"], found["tokens"], strict=True):
        expected = elastic.logits(torch.tensor([prompt]), profile)[0]
        difference = (torch.tensor(logits) - expected).abs().max() / expected.abs().max()
        assert difference < 1e-2
        tokens = list(prompt)
        for token in written:
            assert token == int(elastic.logits(torch.tensor([tokens]), profile)[0, -1].argmax())
            tokens.append(token)


@pytest.mark.parametrize(
    "family, mha, compensation, options",
    [
        ("llama", False, "lstsq", {}),
        ("llama", True, "lstsq", {}),
        ("llama", False, "bias", {}),
        ("llama", False, "lstsq", {"rope_parameters": LLAMA_3}),
        ("llama", False, "lstsq", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", False, "lstsq", {}),
        ("qwen2", False, "lstsq", {}),
    ],
)
def test_its_logits_are_those_of_transformers(tmp_path, bundled, family, mha, compensation, options):
    vocab = len(bundled.tokenizer)
    model = tiny_model(family, mha, tied=True, vocab_size=vocab, head_dim=32, hidden_size=128, **options)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, vocab, (8, 32), generator=generator)
    elastic = ElasticModel(model, calibrate(model, text), compensation=compensation, mlp_unit=MLP_UNIT)
    written = write_gguf(cut(elastic, UNEQUAL), bundled.tokenizer, tmp_path / "model.gguf", FACTS, type="f32")
    prompts = [torch.randint(vocab, (length,), generator=generator).tolist() for length in (1, 7, 96)]

    found = ask(written.path, prompts)

    assert_same(found, elastic, UNEQUAL, prompts)
    assert found["metadata"]["general.base_model.0.name"] == "org/tiny"


def test_the_real_model_cut_differently_in_every_layer(tmp_path, bundled):
    text = torch.randint(0, 1000, (2, 128), generator=torch.Generator().manual_seed(0))
    elastic = ElasticModel(copy.deepcopy(bundled.model), calibrate(bundled.model, text))
    layers = elastic.space.n_layers
    profile = Profile(
        tuple(1 + layer % 3 for layer in range(layers)), tuple(30 + layer % 17 for layer in range(layers))
    )
    written = write_gguf(cut(elastic, profile), bundled.tokenizer, tmp_path / "model.gguf", FACTS, type="f32")
    prompts = [bundled.tokenizer(text).input_ids for text in ("The capital of France is", "Once upon a time")]

    found = ask(written.path, prompts)

    assert_same(found, elastic, profile, prompts)
    assert found["texts"] == [bundled.tokenizer(text).input_ids for text in TEXTS]
    assert (found["bos"], found["eos"]) == (bundled.tokenizer.bos_token_id, bundled.tokenizer.eos_token_id)
    assert found["metadata"]["tokenizer.chat_template"] == bundled.tokenizer.chat_template


@pytest.mark.parametrize("type", ["bf16", "f16"])
def test_the_smaller_types_load_and_agree_as_far_as_their_digits_go(tmp_path, bundled, type):
    model = tiny_model("llama", tied=True, vocab_size=len(bundled.tokenizer), head_dim=32, hidden_size=128)
    text = torch.randint(0, 512, (8, 32), generator=torch.Generator().manual_seed(0))
    elastic = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)
    written = write_gguf(cut(elastic, UNEQUAL), bundled.tokenizer, tmp_path / "model.gguf", FACTS, type=type)

    found = ask(written.path, [[5, 6, 7, 8]], new_tokens=1)

    expected = elastic.logits(torch.tensor([[5, 6, 7, 8]]), UNEQUAL)[0]
    difference = (torch.tensor(found["logits"][0]) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.05
