"""Elastic models of fresh copies of tiny ones, profiles of them, and whether logits are those of a plain model."""

from __future__ import annotations

import copy
import random
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel

from self_pruner.memory.profile import Profile
from self_pruner.tools.pruning.calibration import Calibration, calibrate
from self_pruner.tools.pruning.compensation import Compensation
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import taylor_orders
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import MLP_UNIT, tiny_model

TEXT = torch.randint(0, 512, (6, 24), generator=torch.Generator().manual_seed(0))
INPUT_IDS = torch.randint(0, 512, (2, 17), generator=torch.Generator().manual_seed(1))


@cache
def dense(family: str, mha: bool = False) -> tuple[PreTrainedModel, Calibration]:
    model = tiny_model(family, mha)
    return model, calibrate(model, TEXT)


def elastic(family: str = "llama", mha: bool = False, compensation: Compensation = "none", **settings) -> ElasticModel:
    """An elastic model of a fresh copy of the dense one."""
    model, calibration = dense(family, mha)
    settings = {"mlp_unit": MLP_UNIT} | settings
    if settings.get("importance") == "taylor":
        settings["orders"] = taylor_orders(model, ResidentLayers(model), INPUT_IDS, model.config.num_key_value_heads)
    return ElasticModel(copy.deepcopy(model), calibration, compensation=compensation, **settings)


def profiles(n: int, seed: int = 0) -> list[Profile]:
    """Random profiles, and the two ends."""
    rng = random.Random(seed)
    drawn = [
        Profile(tuple(rng.randint(1, 4) for _ in range(3)), tuple(rng.randint(1, 12) for _ in range(3)))
        for _ in range(n)
    ]
    return [*drawn, Profile((1,) * 3, (1,) * 3), Profile((4,) * 3, (12,) * 3)]


@torch.no_grad()
def assert_same_logits(ours: Tensor, model: PreTrainedModel) -> None:
    torch.testing.assert_close(ours, model(INPUT_IDS).logits, rtol=1e-4, atol=2e-5)
