"""Tiny elastic models, random populations that share prefixes, as offspring do, and walks over them."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.compensation import Compensation
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tiny import MLP_UNIT, tiny_model

TOP = 48  # so that a tiny vocabulary has a rest bucket
PROFILES = (Profile((1, 4, 2), (5, 12, 8)), Profile((3, 2, 1), (10, 3, 7)))
PLACES: list[tuple[int, Part]] = [(layer, part) for layer in range(3) for part in PARTS]


def text(n: int, length: int, vocab: int = 512, seed: int = 1) -> torch.Tensor:
    """Random tokens [n, length]."""
    return torch.randint(vocab, (n, length), generator=torch.Generator().manual_seed(seed))


def tiny_elastic(
    family: str = "llama", compensation: Compensation = "lstsq", refit_memory: int = 1 << 30, **overrides: object
) -> ElasticModel:
    """A calibrated elastic model of 3 layers with 4 KV groups and 12 MLP units each."""
    model = tiny_model(family, **overrides)
    calibration = calibrate(model, text(4, 64, model.config.vocab_size, seed=7))
    return ElasticModel(model, calibration, compensation=compensation, mlp_unit=MLP_UNIT, refit_memory=refit_memory)


def random_profile(space: Space, rng: random.Random) -> Profile:
    """Any profile of the space."""
    return Profile(
        tuple(rng.randint(1, space.n_groups) for _ in range(space.n_layers)),
        tuple(rng.randint(1, space.n_blocks) for _ in range(space.n_layers)),
    )


def population(space: Space, size: int, rng: random.Random) -> list[Profile]:
    """Random profiles, copies of them with one width changed in either part, and one of them twice."""
    profiles = [random_profile(space, rng), space.dense()]
    while len(profiles) < size - 1:
        part, layer = rng.choice(PARTS), rng.randrange(space.n_layers)
        profiles.append(rng.choice(profiles).with_width(layer, part, rng.randint(1, space.units(part))))
    return [*profiles, profiles[0]]


def walk_of(elastic: ElasticModel, input_ids: Tensor, **settings: int) -> PopulationWalk:
    store = ResidentLayers(elastic.model)
    targets = DenseTargets.build(elastic, store, input_ids, k=TOP)
    return PopulationWalk(elastic, store, targets, input_ids, **{"prefix_memory": 0, **settings})


def assert_same(found: Measurement, expected: Measurement) -> None:
    assert (found.profile, found.sequences, found.error) == (expected.profile, expected.sequences, expected.error)
    assert found.kl == pytest.approx(expected.kl, rel=1e-4, abs=1e-6)
    assert found.nll == pytest.approx(expected.nll, rel=1e-5)
