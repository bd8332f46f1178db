"""A tiny elastic model, which nobody may change for good, and a walk over it."""

from __future__ import annotations

import pytest

from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tools.evaluation.populations import text, tiny_elastic, walk_of


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    return tiny_elastic("llama")


@pytest.fixture
def walk(elastic: ElasticModel) -> PopulationWalk:
    return walk_of(elastic, text(4, 24))
