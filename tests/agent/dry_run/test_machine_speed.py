"""Two seconds of timing: nothing is asserted of the seconds, everything of what is timed."""

from pathlib import Path

import pytest
import torch

from self_pruner.agent.dry_run import machine_speed as speed
from self_pruner.agent.dry_run.machine_speed import measure_speed
from self_pruner.tools.models.source import skeleton
from tests.tiny import FAMILY_NAMES, tiny_config

FILE = Path(__file__)


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)


def outline(family="llama", **overrides):
    return skeleton(tiny_config(family, **overrides).to_dict() | {"model_type": family}, "tiny")


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_is_timed_without_its_weights(family, dtype):
    model = outline(family)
    found = measure_speed(model, "cpu", dtype, length=32, together=4, file=FILE)
    assert min(found.layer, found.head, found.step, found.operation, found.read, found.again) > 0 == found.upload
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(("seconds", "longest"), [(1.0, 8), (0.001, 512)])
def test_a_slow_machine_is_timed_on_fewer_tokens(monkeypatch, seconds, longest):
    seen = []

    def timed(self, run):
        run()
        return seconds

    monkeypatch.setattr(speed._Parts, "_seconds", timed)
    monkeypatch.setattr(speed._Parts, "run_layer", lambda self, tokens: seen.append(tokens))
    model = outline()
    found = measure_speed(model, "cpu", torch.float32, length=512, together=8, file=FILE)
    assert max(seen) == longest
    assert found.layer == pytest.approx(seconds / longest)
    assert found.step == pytest.approx(seconds * (model.config.num_hidden_layers + 1))


def test_no_more_is_allocated_than_one_layer_and_the_head():
    model = outline(num_hidden_layers=8)
    parts = speed._Parts(model, "cpu", torch.float32)
    layer = sum(weight.numel() for weight in model.get_decoder().layers[0].parameters())
    assert sum(weight.numel() for weight in parts.layer.parameters()) == layer
    assert parts.head.shape == model.get_output_embeddings().weight.shape
    assert all(torch.isfinite(weight).all() and weight.abs().min() > 0 for weight in parts.layer.parameters())


def test_the_fastest_of_several_passes_counts(monkeypatch):
    seconds = iter([0.4, 0.1, 0.3, 0.2, 0.25, 0.15, 0.3, 0.35])  # of the head and of the layer in turn
    monkeypatch.setattr(speed._Parts, "_seconds", lambda self, run: next(seconds))
    parts = speed._Parts(outline(), "cpu", torch.float32)
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    assert parts.timed(1) == (0.1, 0.25)
