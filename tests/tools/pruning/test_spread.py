"""Layers on several devices: the same numbers as on one, wherever hidden states are kept meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from self_pruner.agent.brain.branches import Branches
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import recalibrate
from self_pruner.tools.pruning.smaller_model import smaller_model
from self_pruner.tools.pruning.store import ResidentLayers, SpreadLayers
from tests.pretended_devices import ElsewhereError, place_of, pretended_devices, put_model
from tests.tiny import MLP_UNIT, tiny_model

PROFILES = (Profile((1, 3, 2), (5, 12, 1)), Profile((4, 4, 4), (12, 12, 12)), Profile((1, 3, 4), (5, 2, 9)))
PLACES = ("cuda:0", "cuda:1", "cuda:1")


def text(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 512, (4, 32), generator=torch.Generator().manual_seed(seed))


def everything(model: Any, store: Any, states: str | None) -> list[Any]:
    """What a run does with a model, as plain numbers."""
    calibration = calibrate(model, text(), batch=2, store=store, states=states)
    elastic = ElasticModel(model, calibration, mlp_unit=MLP_UNIT, store=store, states=states)
    ids = text(seed=1)
    walk = PopulationWalk(elastic, store, DenseTargets.build(elastic, store, ids), ids)
    scores = [(one.kl, one.nll, one.error) for _ in range(2) for one in walk.measure(PROFILES, range(4))]
    sensitivities = [(costs.attention, costs.mlp) for _, costs in walk.first_order(PROFILES[0], [0, 1])]
    refits = recalibrate(elastic, PROFILES[0], text(), batch=2).refits
    with torch.no_grad():
        smaller = smaller_model(elastic, PROFILES[0])(ids[:1].to(model.device)).logits
    read, _ = Branches(model).read(ids[0].tolist())
    curves = [elastic.residual(layer, "mlp").tolist() for layer in range(3)]
    weights = {place: refit.tolist() for place, refit in refits.items()}
    return [calibration.mlp[2].gram.tolist(), scores, sensitivities, weights, smaller.tolist(), read.tolist(), curves]


@pytest.mark.parametrize("family, options", [("llama", {}), ("mistral", {"sliding_window": 8}), ("qwen2", {})])
@pytest.mark.parametrize("states", [None, "cpu"])
def test_a_model_on_two_devices_gives_the_numbers_of_one_to_the_bit(family, options, states):
    model = tiny_model(family, **options)
    other = copy.deepcopy(model)
    expected = everything(model, ResidentLayers(model), None)
    with pretended_devices():
        put_model(other, PLACES[0], PLACES)
        found = everything(other, SpreadLayers(other), states)
        assert {place_of(parameter) for parameter in other.parameters()} == {"cuda:0", "cuda:1"}
    assert found == expected and all(error is None for _, _, error in found[1])


def test_without_a_store_that_moves_states_two_devices_meet():
    model = tiny_model("llama")
    with pretended_devices():
        put_model(model, PLACES[0], PLACES)
        with pytest.raises(ElsewhereError, match="cuda:0 and cuda:1"):
            model(text().to("cuda:0"))


def test_smaller_models_leave_nothing_on_what_they_share_with_the_dense_one():
    model = tiny_model("llama")
    store = SpreadLayers(model)
    elastic = ElasticModel(model, calibrate(model, text(), store=store), mlp_unit=MLP_UNIT, store=store)
    before = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    assert before["model.norm"] == before["model.layers.0"] == 1
    made = [smaller_model(elastic, PROFILES[0]) for _ in range(2)]
    assert {name: len(module._forward_pre_hooks) for name, module in model.named_modules()} == before
    assert [len(module._forward_pre_hooks) for module in (*made[1].model.layers, made[1].model.norm)] == [1] * 4
