"""Which candidate a run ends with: the best on text that the search never saw."""

from __future__ import annotations

import pytest

from self_pruner.agent.result.holdout import best_on_holdout


@pytest.mark.parametrize(
    ("holdout", "best"),
    [
        ({"c1": 0.3, "c2": 0.1, "c3": 0.2}, "c2"),
        ({"c9": 0.1, "c1": 0.2}, "c9"),
        ({"c2": 0.1, "c1": 0.1}, "c1"),
        ({"c1": float("inf"), "c2": 3.0}, "c2"),
        ({}, None),
    ],
)
def test_the_least_divergence_on_unseen_text_wins(holdout, best):
    assert best_on_holdout(holdout) == best
