"""A tokenizer with code of its own is exported where the user trusts it, and no other code with it."""

from __future__ import annotations

import pytest
import torch

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.publish import copy_checkpoint, publish
from self_pruner.tools.export.verify import VerificationError
from self_pruner.tools.models.foreign_code import MODELING_FILE, ForeignCodeError, refuse_foreign
from self_pruner.tools.models.source import load, load_tokenizer, resolve
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.foreign import WAYS, ran, tiny_with_tokenizer_code
from tests.tiny import MLP_UNIT, bundled_tokenizer

PROFILE = Profile((3, 1, 4), (5, 12, 1))
CARD = CardFacts("tiny", "llama", 0.3, (), "text", "python main.py", tokenizer_code=True)
INPUT_IDS = torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    """The elastic model and the tokenizer of a checkpoint whose code is trusted, and the folder."""
    folder = tiny_with_tokenizer_code(tmp_path_factory.mktemp("model") / "tiny")
    loaded = load(resolve(str(folder)), device="cpu", dtype="float32", trust_remote_code=True)
    return ElasticModel(loaded.model, calibrate(loaded.model, INPUT_IDS), mlp_unit=MLP_UNIT), loaded.tokenizer, folder


def test_an_export_of_a_trusted_tokenizer_is_verified_and_copied_and_runs_nothing_of_it(trusted, tmp_path):
    elastic, tokenizer, source = trusted
    ran(source).unlink()
    folder = tmp_path / "model"
    assert publish(elastic, PROFILE, tokenizer, folder, CARD, INPUT_IDS, trusted=True) <= 1e-4
    copy_checkpoint(folder, tmp_path / "copy", trusted=True)
    assert not ran(source).exists()
    for one in (folder, tmp_path / "copy"):
        assert (one / "payload.py").read_bytes() == (source / "payload.py").read_bytes()
        assert type(load_tokenizer(one, trust_remote_code=True)).__name__ == "PayloadTokenizerFast"


@pytest.mark.parametrize("name", ["PayloadWords", "PayloadWordsFast"])
def test_a_class_of_another_name_than_tokenizer_loads_again(trusted, tmp_path, name):
    source = tiny_with_tokenizer_code(tmp_path / "source", name)
    tokenizer = load_tokenizer(source, trust_remote_code=True)
    folder = export(trusted[0], PROFILE, tokenizer, tmp_path / "model", CARD)
    again = load_tokenizer(folder, trust_remote_code=True)
    assert type(again).__name__ == name and again("A word.") == tokenizer("A word.")
    refuse_foreign(folder, trusted=True)


def test_without_trust_it_is_refused(trusted, tmp_path):
    elastic, tokenizer, _ = trusted
    with pytest.raises(VerificationError, match="payload.py"):
        publish(elastic, PROFILE, tokenizer, tmp_path / "model", CARD, INPUT_IDS)
    export(elastic, PROFILE, tokenizer, tmp_path / "other", CARD)
    with pytest.raises(ForeignCodeError, match="payload.py"):
        copy_checkpoint(tmp_path / "other", tmp_path / "copy")
    assert not (tmp_path / "model").exists() and not (tmp_path / "copy").exists()


@pytest.mark.parametrize("way", WAYS)
def test_no_other_code_comes_in_with_a_trusted_tokenizer(trusted, tmp_path, way):
    elastic, tokenizer, _ = trusted
    folder = export(elastic, PROFILE, tokenizer, tmp_path / "model", CARD)
    refuse_foreign(folder, trusted=True)
    WAYS[way][0](folder)
    with pytest.raises(ForeignCodeError):
        refuse_foreign(folder, trusted=True)


def test_code_that_no_tokenizer_names_is_refused_whatever_is_trusted(trusted, tmp_path):
    elastic, _, _ = trusted
    folder = export(elastic, PROFILE, bundled_tokenizer(), tmp_path / "model", CARD)
    (folder / "anything.py").write_text("")
    with pytest.raises(ForeignCodeError, match="anything.py"):
        refuse_foreign(folder, trusted=True)


def test_the_card_says_that_the_tokenizer_brings_code(trusted, tmp_path):
    elastic, tokenizer, _ = trusted
    same = Profile((2, 2, 2), (5, 5, 5))
    facts = CardFacts("tiny", "llama", 0.3, (), "text", "main.py", serving="uniform", tokenizer_code=True)
    folder = export(elastic, same, tokenizer, tmp_path / "model", facts, serving="uniform")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert not (folder / MODELING_FILE.name).exists() and "custom_code" in page
    assert "AutoTokenizer.from_pretrained(folder, trust_remote_code=True)" in page
    assert 'AutoModelForCausalLM.from_pretrained(folder, dtype="auto")' in page
    assert "The tokenizer brings code of its own" in page and "vllm serve . --trust-remote-code\n" in page
