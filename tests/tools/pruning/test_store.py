"""What lies around the layers: embedding and masks are those of the model, and the layers are not copied."""

from __future__ import annotations

import pytest
import torch

from self_pruner.memory.errors import ModelError
from self_pruner.tools.pruning.store import ResidentLayers, embed
from tests.tiny import tiny_model

INPUT_IDS = torch.arange(24).view(2, 12)


def test_resident_layers_are_the_modules_of_the_model():
    model = tiny_model("llama")
    store = ResidentLayers(model)
    assert len(store) == 3
    for index in range(3):
        with store.layer(index) as layer:
            assert layer is model.model.layers[index]


def test_a_window_that_covers_the_sequence_needs_no_mask():
    assert embed(tiny_model("mistral", sliding_window=12), INPUT_IDS).masks == (None, None, None)


def test_a_window_in_the_config_of_a_family_without_one_is_ignored_as_the_model_ignores_it():
    plain, strayed = (tiny_model("llama", **options) for options in ({}, {"sliding_window": 4}))
    assert strayed.config.sliding_window == 4
    assert torch.equal(strayed(INPUT_IDS).logits, plain(INPUT_IDS).logits)
    assert embed(strayed, INPUT_IDS).masks == (None, None, None)


def test_the_window_of_mistral_has_no_switch():
    model = tiny_model("mistral", sliding_window=4, use_sliding_window=False)
    assert embed(model, INPUT_IDS).masks[0] is not None
    assert not torch.equal(model(INPUT_IDS).logits, tiny_model("mistral")(INPUT_IDS).logits)


def test_only_sliding_layers_get_the_mask_and_share_it():
    model = tiny_model("qwen3", sliding_window=5, use_sliding_window=True, max_window_layers=1)
    first, second, third = embed(model, INPUT_IDS).masks
    assert first is None and second is not None and second is third
    seen = [[query - key for key in range(12) if second[0, 0, query, key]] for query in range(12)]
    assert all(min(distances) == 0 and max(distances) == min(query, 4) for query, distances in enumerate(seen))


def test_an_attention_that_would_see_the_future_is_refused():
    model = tiny_model("llama")
    model.set_attn_implementation("eager")
    with pytest.raises(ModelError, match="'eager'.*'sdpa'"):
        embed(model, INPUT_IDS)
