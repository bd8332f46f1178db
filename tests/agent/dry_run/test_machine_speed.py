"""Two seconds of timing: nothing is asserted of the seconds, everything of what is timed."""

import pytest
import torch

from self_pruner.agent.dry_run import machine_speed as speed
from self_pruner.agent.dry_run.machine_speed import measure_speed
from self_pruner.tools.models.outline import skeleton
from tests.tiny import FAMILY_NAMES, tiny_config


def outline(family="llama", **overrides):
    return skeleton(tiny_config(family, **overrides).to_dict() | {"model_type": family}, "tiny")


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_is_timed_without_its_weights(family, dtype):
    model = outline(family)
    found = measure_speed(model, "cpu", dtype, length=32, together=4, seconds=0.02)
    assert min(found.layer, found.head, *found.one, *found.few, found.flops) > 0
    assert all(parameter.is_meta for parameter in model.parameters())


def test_operations_are_two_for_each_weight_of_a_layer():
    model = outline()
    matrices = sum(weight.numel() for weight in model.get_decoder().layers[0].parameters() if weight.ndim == 2)
    found = measure_speed(model, "cpu", torch.float32, length=32, together=4, seconds=0.02)
    assert found.flops == pytest.approx(2 * matrices / found.layer)


def test_a_slow_machine_is_timed_on_fewer_tokens(monkeypatch):
    seen = []

    def slow(self, run):
        run()
        return 1.0

    monkeypatch.setattr(speed._Parts, "_seconds", slow)
    monkeypatch.setattr(speed._Parts, "run_layer", lambda self, tokens: seen.append(tokens))
    found = measure_speed(outline(), "cpu", torch.float32, length=512, together=8, seconds=2.0)
    assert max(seen) == 8  # of the 0.3 s that a pass may take, two of eight tokens are worth
    assert found.layer == pytest.approx(1.0 / 8)


def test_no_more_is_allocated_than_one_layer_and_the_head(monkeypatch):
    made = []
    fill = speed._fill
    monkeypatch.setattr(speed, "_fill", lambda tensor, *rest: (made.append(tensor.numel()), fill(tensor, *rest)))
    model = outline(num_hidden_layers=8)
    parts = speed._Parts(model, "cpu", torch.float32)
    layer = sum(weight.numel() for weight in model.get_decoder().layers[0].parameters())
    assert (
        sum(made)
        == layer + model.get_output_embeddings().weight.numel()
        < 0.5 * sum(weight.numel() for weight in model.parameters())
    )
    assert all(
        torch.isfinite(weight).all() and weight.std() > 0 for weight in parts.layer.parameters() if weight.ndim == 2
    )


def test_tensors_larger_than_the_noise_are_filled_to_their_end():
    tensor = torch.zeros(3, speed.NOISE - 5)
    speed._fill(tensor, torch.ones(speed.NOISE), 2.0)
    assert (tensor == 2.0).all()


@pytest.mark.parametrize(
    ("wanted", "allowed", "given"), [(512, 1e9, 512), (512, 300.0, 256), (512, 0.01, 1), (3, 2.5, 2)]
)
def test_as_many_tokens_as_are_allowed(wanted, allowed, given):
    assert speed._fitting(wanted, allowed) == given
