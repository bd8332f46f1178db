"""Command lines that cannot be meant: one sentence that says what could be."""

from __future__ import annotations

import pytest
import torch

from self_pruner.agent.arguments import parse
from self_pruner.agent.prepare.devices import device_of
from self_pruner.agent.settings import Settings, SettingsError, make_settings


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("exprot", "there is no command 'exprot': did you mean export?"),
        ("reprot", "did you mean report?"),
        ("latency", "did you mean latency-table"),
        ("xyzzy", "there is no command 'xyzzy': commands are run, compare, resume, .*latency-table"),
        ("", "there is no command ''"),
    ],
)
def test_an_unknown_command_is_answered_with_those_like_it(word, sentence):
    with pytest.raises(SettingsError, match=sentence):
        parse([word, "--seed", "3"])


@pytest.mark.parametrize("words", [["export", "run", "--output", "x"], ["tasks", "run"]])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_candidate_is_not_the_default_one(words, empty):
    with pytest.raises(SettingsError, match="--candidate: it is empty; name a candidate"):
        parse([*words, "--candidate", empty])
    assert parse(words).candidate is None


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:" + "9" * 5000])
def test_a_device_that_is_none_is_refused_in_words(device):
    with pytest.raises(SettingsError) as refused:
        make_settings({"device": device})
    assert str(refused.value) == f"--device: it takes auto, cpu, cuda or cuda:N, got {device!r}"


def test_a_gpu_that_is_not_there_is_answered_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="--device cuda:99: no GPU can be used here, only cpu"):
        device_of(Settings(device="cuda:99"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="--device cuda:99: there is none of that number here, only cuda:0, cuda:1"):
        device_of(Settings(device="cuda:99"))
    assert device_of(Settings(device="cuda:1")) == "cuda:1"
