"""The perplexity of a folder, measured by lm-eval's own model: what its windows give, a few positions at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from self_pruner.tools.evaluation import targets
from self_pruner.tools.evaluation.tasks.stock import windows
from tests.tiny import tiny_model

IDS = torch.randint(0, 512, (65,), generator=torch.Generator().manual_seed(0))


def asked(model):
    """As lm-eval holds a model whose tokenizer makes these ids of any text."""

    class Tokenizer:
        model_max_length = 32

        def __call__(self, text):
            return SimpleNamespace(input_ids=IDS.tolist())

    return SimpleNamespace(model=model, tokenizer=Tokenizer(), device=torch.device("cpu"))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_windows_give_what_their_whole_logits_give_with_few_of_them_held(family, monkeypatch):
    monkeypatch.setattr(targets, "HEAD_TOKENS", 7)
    model = tiny_model(family)
    rows = IDS[:60].view(3, 20)
    logits = model(rows).logits[:, :-1].transpose(1, 2)
    expected = F.cross_entropy(logits, rows[:, 1:], reduction="none").mean(1)
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda module, taken, given: shapes.append(given.shape[:-1].numel()))
    with hook, torch.no_grad():
        found = windows(asked(model), "any", 20)
    assert torch.tensor(found) == pytest.approx(expected, rel=1e-5)
    assert max(shapes) == 7 and sum(shapes) == 3 * 19


def test_a_family_whose_logits_may_be_capped_is_asked_for_them_itself():
    model = tiny_model("llama")
    expected = windows(asked(model), "any", 20)
    model.config.model_type = "capped"
    forward = model.forward

    def capped(*arguments, **options):
        given = forward(*arguments, **options)
        given.logits = given.logits.clamp(-1, 1)
        return given

    model.forward = capped
    found = windows(asked(model), "any", 20)
    assert len(found) == len(expected) == 3 and all(abs(a - b) > 1e-3 for a, b in zip(found, expected, strict=True))
