"""Exported checkpoints of every family, loaded by transformers alone in one isolated process, compute the same."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_model

# The first layer keeps 3 groups of 2 heads: 6 heads do not divide the hidden size of 64. The second is dense in part.
PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("tiny", "llama", 0.3, (), "random text", "python main.py")

CASES = [
    *((family, mha, mha, "lstsq") for family, mha in itertools.product(FAMILY_NAMES, (False, True))),
    *((family, False, True, "bias") for family in FAMILY_NAMES),
    ("llama", False, False, "none"),
]
NAMES = [
    f"{family}-{'mha' if mha else 'gqa'}-{'tied' if tied else 'untied'}-{compensation}"
    for family, mha, tied, compensation in CASES
]

STRANGER = """
import json, sys, warnings
from pathlib import Path
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
root = Path(sys.argv[1])
for folder in sorted(root.iterdir()):
    reference = load_file(root.parent / f"{folder.name}.safetensors")
    ids = reference["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto")
    def greedy(**options):
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False,
            pad_token_id=0, **options,
        )[:, -8:].tolist()
    with torch.no_grad():
        found = model(ids).logits
        body = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype="auto")
        headless = model.lm_head(body(ids).last_hidden_state)
        cached, plain, static = greedy(), greedy(use_cache=False), greedy(cache_implementation="static")
        model.set_attn_implementation("eager")
        eager = model(ids, output_attentions=True)
    print(json.dumps({
        "name": folder.name,
        "class": type(model).__name__,
        "difference": (found - reference["logits"]).abs().max().item(),
        "headless": (headless - found).abs().max().item(),
        "eager": (eager.logits - found).abs().max().item(),
        "heads": [attention.shape[1] for attention in eager.attentions],
        "same": cached == plain, "same_static": static == plain, "tokens": cached,
        "parameters": model.num_parameters(),
        "backend": model._supports_attention_backend,
        "project": sorted({"main", "agent", "tools", "memory", "prompts"} & set(sys.modules)),
    }))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What a stranger's process found in the folder of each case, by its name."""
    root = tmp_path_factory.mktemp("exported")
    (root / "folders").mkdir()
    expected = {}
    for name, (family, mha, tied, compensation) in zip(NAMES, CASES, strict=True):
        model = tiny_model(family, mha=mha, tied=tied)
        text = torch.randint(0, 512, (8, 32), generator=torch.Generator().manual_seed(0))
        elastic = ElasticModel(model, calibrate(model, text), compensation=compensation, mlp_unit=MLP_UNIT)
        export(elastic, PROFILE, None, root / "folders" / name, replace(CARD, family=family))
        ids = text[:2, :16]
        save_file({"input_ids": ids.contiguous(), "logits": elastic.logits(ids, PROFILE)}, root / f"{name}.safetensors")
        expected[name] = elastic.space.params(PROFILE)
    child = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(root / "folders")],
        env=os.environ | {"HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    found = {row["name"]: row | {"expected_parameters": expected[row["name"]]} for row in rows}
    found["stderr"] = {"text": child.stderr}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_its_logits_are_the_elastic_models(loaded, name):
    assert loaded[name]["difference"] <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_it_generates_the_same_with_a_growing_a_static_and_no_cache(loaded, name):
    assert len(loaded[name]["tokens"][0]) == 8
    assert loaded[name]["same"] and loaded[name]["same_static"]


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_without_its_head_and_switches_attention_in_every_layer(loaded, name):
    assert loaded[name]["headless"] <= 1e-5
    assert loaded[name]["eager"] <= 1e-4
    heads_per_group = 1 if "-mha-" in name else 2
    assert loaded[name]["heads"] == [groups * heads_per_group for groups in PROFILE.attention]
    assert loaded[name]["backend"] is True


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_parameters_the_space_counts(loaded, name):
    assert loaded[name]["parameters"] == loaded[name]["expected_parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_this_project_is_imported(loaded, name):
    assert loaded[name]["project"] == []
    assert loaded[name]["class"].startswith("SelfPruned")


def test_loading_raises_no_alarm_about_widths(loaded):
    assert "heterogeneous" not in loaded["stderr"]["text"]
    assert "newly initialized" not in loaded["stderr"]["text"]
