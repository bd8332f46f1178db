import pytest
from transformers import GPT2Config, LlamaConfig

from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.memory.profile import Profile
from self_pruner.tools.models.families import (
    FAMILIES,
    Geometry,
    decoder_layers,
    family_of,
    geometry,
    mlp_unit_of,
    space_of,
)
from tests.tiny import FAMILY_NAMES, MLP_UNIT, tiny_config, tiny_model


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_space_counts_what_a_really_smaller_model_has(family, mha, tied):
    space = space_of(tiny_model(family, mha, tied=tied), MLP_UNIT)
    sizes = dict(num_key_value_heads=2, num_attention_heads=2 if mha else 4, intermediate_size=80)
    smaller = tiny_model(family, mha, tied=tied, **sizes)
    assert space.params(space.dense()) == count(tiny_model(family, mha, tied=tied))
    assert space.params(Profile((2,) * 3, (10,) * 3)) == count(smaller)


def test_space_leaves_output_biases_of_the_checkpoint_fixed():
    biased = dict(attention_bias=True, mlp_bias=True)
    space = space_of(tiny_model("llama", **biased), MLP_UNIT, compensation_bias=True)
    smaller = tiny_model("llama", num_key_value_heads=1, num_attention_heads=2, intermediate_size=8, **biased)
    assert space.params(space.smallest()) == count(smaller)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_bias_compensation_adds_two_biases_a_layer(family):
    model = tiny_model(family)
    plain, compensated = space_of(model, MLP_UNIT), space_of(model, MLP_UNIT, compensation_bias=True)
    assert compensated.fixed_params - plain.fixed_params == 3 * 2 * 64
    assert compensated.group_params == plain.group_params
    assert compensated.params(compensated.dense()) == count(model) + 3 * 2 * 64
    assert compensated.dense_params == plain.dense_params == count(model)  # the dense model has none of them


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_family_is_found_by_config_object_and_by_mapping(family):
    config = tiny_model(family).config
    assert family_of(config) == family_of(config.to_dict()) == FAMILIES[family]


@pytest.mark.parametrize("config", [GPT2Config(), {"model_type": "gpt2"}, {}, {"model_type": ["llama"]}])
def test_other_families_are_refused_with_the_supported_ones_named(config):
    with pytest.raises(ModelError, match="llama, mistral, qwen2, qwen3"):
        family_of(config)


def test_a_supported_type_with_another_head_is_refused():
    with pytest.raises(ModelError, match="LlamaForSequenceClassification.*LlamaForCausalLM"):
        family_of({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]})


def test_a_pruned_model_is_refused():
    with pytest.raises(ModelError, match="pruned already"):
        family_of(LlamaConfig(per_layer_config={"0": {"intermediate_size": 64}}))


def test_geometry_reads_groups_and_heads():
    assert geometry(tiny_config("qwen3")) == Geometry(3, 64, 4, 2, 16, 96, 512)
    assert geometry(tiny_config("llama", mha=True)).heads_per_group == 1


def shape(hidden, intermediate):
    return Geometry(2, hidden, 4, 1, 16, intermediate, 512)


@pytest.mark.parametrize(
    ("hidden", "intermediate", "unit"),
    [(4096, 11008, 128), (8192, 28672, 128), (576, 1536, 32), (896, 4864, 32), (2048, 8200, 40), (64, 24, 24)],
)
def test_default_mlp_unit_divides_the_channels(hidden, intermediate, unit):
    assert mlp_unit_of(shape(hidden, intermediate)) == unit


def test_mlp_unit_that_does_not_fit_is_refused():
    for unit in (0, -8, 12, 40, 104):
        with pytest.raises(SettingsError, match="multiple of 8 that divides the intermediate size 96"):
            mlp_unit_of(shape(64, 96), unit)
    with pytest.raises(SettingsError, match="100 is not divisible by 8"):
        mlp_unit_of(shape(64, 100))


def test_decoder_layers_come_in_order():
    model = tiny_model("mistral")
    assert [layer is model.model.layers[i] for i, layer in enumerate(decoder_layers(model))] == [True] * 3
