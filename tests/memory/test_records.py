"""A record holds a measurement or a failure, and no failure passes for a measurement."""

import pytest

from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Score, TaskScore

PROFILE = Profile((3,), (12,))


def accuracy(value: float) -> TaskScore:
    return TaskScore(PROFILE, "boolq", 8, "acc", "d", value, 0.1, "r", 1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_task_may_be_answered_all_wrong_or_all_right(value):
    assert accuracy(value).value == value


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_no_other_share_of_right_answers_is_taken(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        accuracy(value)


@pytest.mark.parametrize("values", [(0.5, None), (None, 2.0), (0.0, 0.0)])
def test_one_measured_value_is_a_score(values):
    kl, nll = values
    score = Score(PROFILE, "t", 0, kl, nll, "r", 1)
    assert (score.kl, score.nll, score.error) == (kl, nll, None)


def test_a_value_beside_an_error_is_no_score():
    with pytest.raises(ValueError, match="values or an error"):
        Score(PROFILE, "t", 0, 0.5, None, "r", 1, "out of memory")
