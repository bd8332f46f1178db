"""Serving formats: the units they ask for, what they refuse, and checkpoints that stock classes load."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from self_pruner.memory.errors import ExportError, SettingsError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import config_of, export
from self_pruner.tools.export.serving import Units, expressible_heads, units_for, vllm_options
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_tensors
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_config, tiny_folder, tiny_model

CARD = CardFacts("org/tiny", "llama", 0.3, (), "random text", "python main.py --seed 0")
SMALL = tiny_config("llama", intermediate_size=192)
LARGE = tiny_config("llama", hidden_size=2048, intermediate_size=1024)


def elastic_model(family: str = "llama", attention_unit: int = 1, **options) -> ElasticModel:
    model = tiny_model(family, **options)
    text = torch.randint(0, 512, (8, 32), generator=torch.Generator().manual_seed(0))
    return ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT, attention_unit=attention_unit)


@pytest.mark.parametrize(
    "target, config, options, units",
    [
        ("transformers", SMALL, {}, Units(32, 1)),
        ("transformers", SMALL, {"mlp_unit": 8}, Units(8, 1)),
        ("vllm", SMALL, {}, Units(64, 1)),
        ("vllm", LARGE, {}, Units(128, 1)),
        ("vllm", SMALL, {"mlp_unit": 192}, Units(192, 1)),
        ("vllm", SMALL, {"tensor_parallel": 2}, Units(64, 2)),
        ("vllm-native", SMALL, {}, Units(64, 4)),
        ("vllm-native", SMALL, {"tensor_parallel": 4}, Units(64, 4)),
        ("uniform", SMALL, {}, Units(32, 1)),
        ("uniform", SMALL, {"tensor_parallel": 2}, Units(32, 2)),
    ],
)
def test_a_format_asks_for_units_that_divide_as_its_engine_wants(target, config, options, units):
    assert units_for(target, config, **options) == units


@pytest.mark.parametrize(
    "target, config, options, sentence",
    [
        ("vllm", tiny_config("llama"), {}, "multiples of 64: .* divides the model's 96 channels, and 64 is none"),
        ("vllm", SMALL, {"mlp_unit": 32}, "multiples of 64: .*, and 32 is none"),
        ("vllm", SMALL, {"tensor_parallel": 8}, "does not divide the model's 4 KV heads"),
        ("vllm", SMALL, {"tensor_parallel": 3}, "does not divide an MLP unit of 64 channels"),
        (
            "vllm-native",
            tiny_config("qwen3"),
            {},
            "cannot express layer 0 of a qwen3 model: .* norms of",
        ),
        ("vllm-native", tiny_config("mistral", sliding_window=64), {}, "cannot express layer 0: .* over 64 tokens"),
        ("vllm-native", SMALL, {"bias": True}, "no biases for --compensation bias"),
        ("uniform", SMALL, {"bias": True}, "no biases for --compensation bias"),
    ],
)
def test_what_a_format_cannot_express_is_said_with_what_can(target, config, options, sentence):
    with pytest.raises(ExportError, match=sentence):
        units_for(target, config, **options)


def test_an_mlp_unit_that_no_format_takes_is_the_same_error_as_ever():
    with pytest.raises(SettingsError, match="divides the intermediate size 192"):
        units_for("transformers", SMALL, mlp_unit=56)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_window_that_the_model_does_not_use_is_no_obstacle(family):
    config = tiny_config(family, intermediate_size=192, use_sliding_window=False, sliding_window=64)
    if family == "llama":  # which has no such setting
        del config.use_sliding_window
    assert units_for("vllm-native", config).attention == 4


def test_stock_llama_takes_query_heads_that_divide_the_hidden_size():
    config = tiny_config("llama", hidden_size=48)  # 4 KV heads of two query heads each: 2, 4, 6 or 8 query heads
    assert expressible_heads("uniform", config) == {1, 2, 3, 4}
    assert expressible_heads("uniform", tiny_config("llama")) == {1, 2, 4}
    assert expressible_heads("vllm", tiny_config("llama")) == {1, 2, 3, 4}


def test_stock_qwen2_keeps_all_heads_for_vllm_computes_their_size_from_their_number():
    config = tiny_config("qwen2", head_dim=8)  # of which 8 are as wide as the hidden state, as in every Qwen2
    assert expressible_heads("uniform", config) == {4}
    assert expressible_heads("uniform", tiny_config("qwen3")) == {1, 2, 3, 4}  # whose config states the size
    assert expressible_heads("vllm", config) == expressible_heads("transformers", config) == {1, 2, 3, 4}


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_that_is_what_the_stock_config_itself_refuses(heads):
    def stock():
        return tiny_config("llama", num_attention_heads=2 * heads, num_key_value_heads=heads)

    if heads in expressible_heads("uniform", tiny_config("llama")):
        assert stock().num_key_value_heads == heads
    else:
        with pytest.raises(Exception, match="multiple|divi"):
            stock()


@pytest.mark.parametrize(
    "target, profile, sentence",
    [
        ("vllm-native", Profile((4, 3, 4), (5, 12, 1)), "cannot express layer 1: it keeps 3 of 4 attention units"),
        ("uniform", Profile((2, 2, 2), (5, 5, 1)), "cannot express layer 2: it keeps 2 attention and 1 MLP units"),
    ],
)
def test_a_profile_is_refused_by_the_layer_that_does_not_fit_and_nothing_is_written(
    target, profile, sentence, tmp_path
):
    with pytest.raises(ExportError, match=sentence):
        export(elastic_model(), profile, None, tmp_path / "model", CARD, serving=target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_units_of_two_kv_groups_cut_the_same_weights_as_two_units(family):
    single, double = elastic_model(family), elastic_model(family, attention_unit=2)
    one, two = Profile((2, 4, 2), (5, 12, 1)), Profile((1, 2, 1), (5, 12, 1))
    assert double.space.params(two) == single.space.params(one)
    assert double.space.sizes(two) == single.space.sizes(one) == [(2, 40), (4, 96), (2, 8)]
    expected, found = dict(smaller_tensors(single, one)), dict(smaller_tensors(double, two))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    configs = [
        config_of(elastic.model.config, elastic.space, profile, dtype="float32").to_dict()
        for elastic, profile in ((single, one), (double, two))
    ]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_model_of_one_width_loads_in_the_stock_class_without_remote_code(family, tmp_path):
    elastic, profile = elastic_model(family), Profile((2,) * 3, (5,) * 3)
    folder = export(elastic, profile, None, tmp_path / "model", CARD, serving="uniform")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")

    config = json.loads((folder / "config.json").read_text())
    assert type(model) is type(elastic.model)
    assert config["architectures"] == [type(elastic.model).__name__]
    assert not {"auto_map", "per_layer_config"} & config.keys()
    assert not list(folder.glob("*.py"))
    ids = torch.randint(0, 512, (2, 24), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(ids).logits, elastic.logits(ids, profile), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_the_format_of_vllm_itself_names_its_class_and_states_every_layer(family, tmp_path):
    elastic = elastic_model(family, attention_unit=4)
    folder = export(elastic, Profile((1, 1, 1), (5, 12, 1)), None, tmp_path / "model", CARD, serving="vllm-native")

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto")

    assert json.loads((folder / "config.json").read_text())["architectures"] == ["DeciLMForCausalLM"]
    layers = model.config.block_configs
    assert [layer.ffn.intermediate_size for layer in layers] == [40, 96, 8]
    assert [layer.attention.n_heads_in_group for layer in layers] == [2, 2, 2]
    assert not any(layer.ffn.no_op or layer.attention.no_op for layer in layers)
    assert getattr(model.config, "qkv_bias", None) == (True if family == "qwen2" else None)


def test_a_stock_checkpoint_is_left_to_vllms_own_class(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    assert vllm_options(folder) == {}
    assert vllm_options(folder, tensor_parallel=2) == {"tensor_parallel_size": 2}
