"""An exported folder whose config.json was written over is refused in a sentence, whatever is in it now."""

import json

import pytest
import torch

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.gguf.weights import read
from tests.tools.pruning.elastic_models import elastic


@pytest.mark.parametrize(
    "change",
    [
        {"allow_global_per_layer_attribute_access": False},
        {"allow_global_per_layer_attribute_access": None},
        {"per_layer_config": "x"},
        {"per_layer_config": {"0": {"num_key_value_heads": 2}}},
        {"head_dim": "16"},
        {"num_attention_heads": True},
        {"hidden_size": 1e400},
    ],
)
def test_a_config_that_describes_no_pruned_model_is_a_sentence(tmp_path, change):
    facts = CardFacts("tiny", "llama", 0.3, (), "nothing", "main.py")
    folder = export(elastic(), Profile((2, 3, 1), (5, 6, 7)), None, tmp_path / "model", facts)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match="describes no model|do not fit its config") as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text(json.dumps(config))
    assert next(read(folder).tensors())[1].dtype == torch.float32
