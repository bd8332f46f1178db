"""A model without its weights: the shapes are those of the model, and weights are neither fetched nor read."""

import json
import shutil

import pytest

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models import bundled, hub
from self_pruner.tools.models.aliases import ALIASES, PUBLISHED
from self_pruner.tools.models.families import space_of
from self_pruner.tools.models.hub import HubError, fetch_outline
from self_pruner.tools.models.outline import outline, skeleton
from self_pruner.tools.models.source import resolve
from tests.tiny import FAMILY_NAMES, tiny_config, tiny_folder, tiny_model
from tests.tools.models.test_hub import Hub


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def bare(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_space_of_profiles_is_that_of_the_model_with_weights(family, tied):
    model = tiny_model(family, tied=tied)
    fields = tiny_config(family, tied=tied).to_dict() | {"model_type": family}
    empty = skeleton(fields, "tiny")
    assert all(parameter.is_meta for parameter in empty.parameters())
    for bias in (False, True):
        assert space_of(empty, 8, bias) == space_of(model, 8, bias)
    assert sum(p.numel() for p in empty.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_folder_needs_no_weights_for_its_outline(bare, original):
    with pytest.raises(ModelError, match="no weights"):
        resolve(str(bare))
    known = outline(resolve(str(bare), weights=False))
    whole = outline(resolve(str(original), weights=False))
    assert not known.has_weights and whole.has_weights
    assert space_of(known.model, 8) == space_of(whole.model, 8)
    assert known.tokenizer("early layers")["input_ids"] == whole.tokenizer("early layers")["input_ids"]
    assert known.to_fetch == 0


def test_weights_that_are_there_are_checked_all_the_same(bare):
    (bare / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError):
        resolve(str(bare), weights=False)


def test_the_tokenizer_is_left_alone_where_it_is_not_wanted(original):
    assert outline(resolve(str(original)), tokenizer=False).tokenizer is None


def test_the_bundled_model_is_known_before_it_is_fetched(tmp_path, bundled_folder):
    there, gone = outline(resolve("smollm2-135m")), outline(resolve("smollm2-135m"), cache=tmp_path)
    assert there.to_fetch == 0 and there.tokenizer is not None
    assert gone.to_fetch == bundled.MODEL_BUNDLE.size and gone.tokenizer is None
    assert space_of(gone.model) == space_of(there.model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"num_hidden_layers": 0},
        {"hidden_act": "nothing"},
        {"head_dim": -4},
        {"vocab_size": None},
    ],
)
def test_a_config_that_makes_no_sense_is_one_sentence(wrong):
    with pytest.raises(ModelError, match="'mine' describes no model") as caught:
        skeleton({**bundled.MODEL_CONFIG, **wrong}, "mine")
    assert "\n" not in str(caught.value)


def test_another_family_is_refused():
    with pytest.raises(ModelError, match="gpt2"):
        skeleton({**bundled.MODEL_CONFIG, "model_type": "gpt2"}, "mine")


def test_of_a_hub_model_config_and_tokenizer_are_fetched_and_no_weights(original, monkeypatch):
    stub = Hub(original, monkeypatch)
    folder, missing = fetch_outline("org/tiny")
    assert folder == original
    assert "config.json" in stub.fetched and "tokenizer.json" in stub.fetched
    assert not [name for name in stub.fetched if name.endswith(".safetensors")]
    unfetched = {"model.safetensors", "generation_config.json"} - set(stub.fetched)
    assert missing == sum((original / name).stat().st_size for name in unfetched)


def test_of_a_hub_model_the_config_alone_is_fetched_where_no_tokenizer_is_wanted(original, monkeypatch):
    stub = Hub(original, monkeypatch)
    fetch_outline("org/tiny", tokenizer=False)
    assert set(stub.fetched) == {"config.json"}


def test_a_hub_model_that_is_here_has_nothing_to_fetch(original, monkeypatch):
    stub = Hub(original, monkeypatch)
    stub.fetched = [path.name for path in original.iterdir()]
    assert fetch_outline("org/tiny")[1] == 0


def test_without_network_the_copy_fetched_before_is_used(original, monkeypatch):
    stub = Hub(original, monkeypatch)

    def unreachable(*arguments, **options):
        raise ConnectionError

    monkeypatch.setattr(hub.huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(HubError, match="cannot be reached"):
        fetch_outline("org/tiny")
    stub.fetched.append("config.json")
    assert fetch_outline("org/tiny") == (original, 0)


def test_pickles_on_the_hub_are_refused_before_anything_is_fetched(original, tmp_path, monkeypatch):
    pickled = shutil.copytree(original, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    stub = Hub(pickled, monkeypatch)
    with pytest.raises(ModelError):
        fetch_outline("org/pickled")
    assert not stub.fetched


def test_a_folder_whose_config_is_no_json_is_refused(bare):
    (bare / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError, match="JSON object"):
        resolve(str(bare), weights=False)


KNOWN = {  # parameters, as their makers state them
    "llama-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.3-70b-instruct": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


@pytest.mark.parametrize("name", KNOWN)
def test_published_shapes_have_the_parameters_they_are_known_for(name):
    model = skeleton(PUBLISHED[name], name)
    assert sum(parameter.numel() for parameter in model.parameters()) == KNOWN[name]


def test_every_alias_has_published_shapes_and_none_is_asked_of_the_hub_for_them(monkeypatch, original):
    stub = Hub(original, monkeypatch)
    assert PUBLISHED.keys() == ALIASES.keys()
    known = outline(resolve("llama-2-70b"), published=True)
    assert not stub.fetched
    assert known.tokenizer is None and known.to_fetch == 2 * KNOWN["llama-2-70b"] and known.has_weights


def test_shapes_and_tokenizer_that_were_fetched_before_are_taken_in_their_place(monkeypatch, original):
    stub = Hub(original, monkeypatch)
    stub.fetched.append("config.json")
    known = outline(resolve("llama-2-70b"), published=True)
    assert known.tokenizer is not None and known.model.config.num_hidden_layers == 3
