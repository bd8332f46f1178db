"""A profile of a tiny model, texts, and the model recalibrated at it."""

from __future__ import annotations

from self_pruner.memory.profile import Profile
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import recalibrate
from tests.tools.evaluation.populations import text

TEXT = text(6, 24, seed=3)
OTHER = text(3, 17, seed=4)
PROFILE = Profile((2, 4, 1), (6, 3, 12))  # two places at full width, the last one among them


def recalibrated(elastic: ElasticModel, profile: Profile = PROFILE, **options: object) -> ElasticModel:
    """With all of the error made up for, unless asked otherwise."""
    return elastic.recalibrated(recalibrate(elastic, profile, TEXT, **({"share": 1.0} | options)))
