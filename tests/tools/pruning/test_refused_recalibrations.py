"""What cannot be recalibrated, or asked of a model that was, is refused in a sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError, ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.pruning.recalibration import recalibrate
from self_pruner.tools.pruning.store import output_projection
from tests.tiny import MLP_UNIT
from tests.tools.evaluation.populations import tiny_elastic
from tests.tools.pruning.recalibrations import PROFILE, TEXT, recalibrated


def test_another_width_than_its_own_is_refused():
    found = recalibrated(tiny_elastic())
    with pytest.raises(ModelError, match=f"mlp of layer 2 is recalibrated at {12 * MLP_UNIT} channels, not at 8"):
        found.block_weights(2, "mlp", 1)


@pytest.mark.parametrize("compensation", ["none", "bias"])
def test_a_model_without_refits_is_refused(compensation):
    elastic = tiny_elastic(compensation=compensation)
    with pytest.raises(MeasurementError, match="least-squares refits"):
        recalibrate(elastic, PROFILE, TEXT)
    with pytest.raises(ModelError, match=f"'lstsq', not '{compensation}'"):
        elastic.recalibrated(recalibrate(tiny_elastic(), PROFILE, TEXT))


BAD: dict[str, tuple[Profile, Tensor, float, str]] = {
    "profile": (Profile((5, 1, 1), (1, 1, 1)), TEXT, 1.0, "not a profile of this model: 5,1,1"),
    "no text": (PROFILE, TEXT[:0], 1.0, "rows of tokens"),
    "a row": (PROFILE, TEXT[0], 1.0, "rows of tokens"),
    "share": (PROFILE, TEXT, 1.5, "0 to 1, got 1.5"),
    "no share": (PROFILE, TEXT, float("nan"), "0 to 1, got nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_recalibrated_with_is_named(name):
    profile, ids, share, said = BAD[name]
    with pytest.raises(MeasurementError, match=said):
        recalibrate(tiny_elastic(), profile, ids, share=share)


def test_states_that_are_not_finite_name_their_place():
    elastic = tiny_elastic()
    with torch.no_grad():
        elastic.model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(MeasurementError, match="mlp of layer 1"):
        recalibrate(elastic, PROFILE, TEXT)


def test_a_model_is_recalibrated_once_and_with_a_recalibration():
    elastic = tiny_elastic()
    calibration = recalibrate(elastic, PROFILE, TEXT)
    found = elastic.recalibrated(calibration)
    with pytest.raises(ModelError, match="once"):
        found.recalibrated(calibration)
    with pytest.raises(MeasurementError, match="once"):
        recalibrate(found, PROFILE, TEXT)
    with pytest.raises(ModelError, match="does not fit a model"):
        tiny_elastic(intermediate_size=64).recalibrated(calibration)


def test_a_recalibrated_model_has_no_residuals_and_no_first_order():
    found = recalibrated(tiny_elastic())
    layer = found.model.model.layers[0]
    with pytest.raises(MeasurementError, match="ask the elastic model"):
        found.residual(0, "mlp")
    with pytest.raises(MeasurementError, match="ask the elastic model"):
        found.first_order(layer, 0, "mlp", output_projection(layer, "mlp").weight, torch.zeros(64))
