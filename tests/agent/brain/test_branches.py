import pytest
import torch

from self_pruner.agent.brain.branches import Branches
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.pruning.streamed import StreamedLayers
from tests.tiny import FAMILY_NAMES, bundled_tokenizer, tiny_model

PROMPT = [5, 9, 300, 17, 17, 4, 88, 120, 3]


def alone(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_branches_of_unequal_length_see_the_prompt_and_themselves_only(family):
    model = tiny_model(family)
    branches = Branches(model)
    first, cached = branches.read(PROMPT)
    torch.testing.assert_close(first, alone(model, PROMPT), atol=1e-4, rtol=1e-4)
    said = {0: [], 1: [], 2: []}
    for feed in ({0: [7], 1: [1, 2, 3, 4], 2: [400, 2]}, {0: [8, 9, 10], 2: [5]}, {0: [1], 1: [6] * 7}):
        logits = branches.extend(feed)
        assert set(logits) == set(feed)
        for branch, tokens in feed.items():
            said[branch] += tokens
            expected = alone(model, PROMPT + said[branch])
            torch.testing.assert_close(logits[branch], expected, atol=1e-4, rtol=1e-4)
    assert cached == 0


def test_the_next_prompt_computes_only_what_is_new_from_a_whole_pass_on(monkeypatch):
    monkeypatch.setattr("self_pruner.agent.brain.branches.CHUNK", 4)
    model = tiny_model("qwen2")
    branches = Branches(model)
    branches.read(PROMPT)
    branches.extend({0: [1, 2], 1: [3]})
    changed = [*PROMPT[:6], 11, 12, 13]
    logits, cached = branches.read(changed)
    assert cached == 4  # the first six tokens are the same, and a pass has four
    torch.testing.assert_close(logits, alone(model, changed), atol=1e-4, rtol=1e-4)
    logits, cached = branches.read(changed)
    assert cached == len(changed) - 1
    torch.testing.assert_close(logits, alone(model, changed), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(branches.extend({0: [4]})[0], alone(model, [*changed, 4]), atol=1e-4, rtol=1e-4)
    logits, cached = branches.read([44, 45])
    assert cached == 0
    torch.testing.assert_close(logits, alone(model, [44, 45]), atol=1e-4, rtol=1e-4)


def test_a_long_prompt_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr("self_pruner.agent.brain.branches.CHUNK", 4)
    model = tiny_model("llama")
    logits, _ = Branches(model).read(PROMPT)
    torch.testing.assert_close(logits, alone(model, PROMPT), atol=1e-4, rtol=1e-4)


def test_a_pass_interrupted_in_the_middle_does_not_spoil_the_next_prompt():
    model = tiny_model("llama")
    branches = Branches(model)
    branches.read(PROMPT)

    def interrupt(*args):
        raise KeyboardInterrupt

    handle = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        branches.extend({0: [1, 2]})
    handle.remove()
    logits, _ = branches.read(PROMPT)
    torch.testing.assert_close(logits, alone(model, PROMPT), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_streamed_model_reads_a_prompt_in_one_pass_and_to_the_bit_as_one_in_memory(tmp_path, monkeypatch, family):
    monkeypatch.setattr("self_pruner.agent.brain.branches.CHUNK", 4)
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    bundled_tokenizer().save_pretrained(tmp_path)
    loaded = load(resolve(str(tmp_path)), device="cpu", dtype="float32", layers=False)
    with StreamedLayers(loaded.model, loaded.files) as store:
        here, there = Branches(model), Branches(loaded.model)
        for prompt in (PROMPT, [*PROMPT[:6], 11, 12, 13, 14]):
            before = store.layers_read
            (ours, kept), (theirs, cached) = there.read(prompt), here.read(prompt)
            assert torch.equal(ours, theirs) and kept == cached
            assert store.layers_read == before + len(store)
            feed = {0: [7], 1: [1, 2, 3]}
            ours, theirs = there.extend(feed), here.extend(feed)
            assert all(torch.equal(ours[branch], theirs[branch]) for branch in feed)
