"""Best-so-far staircases and what it costs to reach a quality."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.curves import best_so_far, first_reached, mean_curve, reach
from self_pruner.agent.compare.results import CurvePoint
from tests.agent.compare.invented import steady


def points(*pairs):
    return [CurvePoint(cost=cost, seconds=0.0, fitness=fitness) for cost, fitness in pairs]


def test_a_staircase_never_rises_and_is_in_the_order_of_cost():
    found = best_so_far(points((30, 0.9), (10, 1.0), (20, 0.8), (40, 0.7)))
    assert found == [(10, 1.0), (20, 0.8), (30, 0.8), (40, 0.7)]


def test_of_two_points_at_one_cost_the_better_one_stands():
    assert best_so_far(points((10, 0.9), (10, 0.7), (10, 0.8))) == [(10, 0.7)]


def test_the_mean_starts_where_all_have_begun_and_ended_runs_stay():
    one, other = [(10, 1.0), (30, 0.6)], [(20, 0.8), (50, 0.2)]
    assert mean_curve([one, other]) == [
        (20, pytest.approx(0.9)),
        (30, pytest.approx(0.7)),
        (50, pytest.approx(0.4)),
    ]


def test_the_mean_of_nothing_is_nothing():
    assert mean_curve([]) == [] and mean_curve([[]]) == []
    assert reach([], [[(10, 1.0)]]) is None and reach([[(10, 1.0)]], []) is None


STAIRS = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=6), min_size=1, max_size=4
)


@steady
@given(STAIRS)
def test_the_mean_is_at_every_cost_the_mean_of_the_bests(runs):
    curves = [best_so_far(points(*run)) for run in runs]
    found = dict(mean_curve(curves))
    for cost in range(max(min(cost for cost, _ in run) for run in runs), 51):
        bests = [min(fitness for at, fitness in run if at <= cost) for run in runs]
        known = [at for at in found if at <= cost]
        assert found[max(known)] == pytest.approx(sum(bests) / len(bests))


@steady
@given(STAIRS)
def test_an_arm_reaches_its_own_end_at_the_share_of_one(runs):
    curves = [best_so_far(points(*run)) for run in runs]
    found = reach(curves, curves)
    assert found.share == 1.0 and found.needed == found.theirs <= found.spent


def test_the_same_quality_at_a_third_of_the_tokens():
    fast = [[(100, 1.0), (200, 0.5)], [(100, 0.9), (200, 0.3)]]
    slow = [[(100, 1.0), (600, 0.4), (900, 0.4)]]
    found = reach(fast, slow)
    assert (found.target, found.needed, found.theirs, found.spent) == (0.4, 200, 600, 900)
    assert found.share == pytest.approx(1 / 3)
    assert reach(slow, [[(50, 0.39)]]).needed is None
    assert reach(slow, [[(50, 0.39)]]).share is None


def test_a_target_in_the_midst_of_a_step_is_reached_with_the_step():
    assert first_reached([(10, 1.0), (20, 0.5)], 0.7) == 20
    assert first_reached([(10, 1.0), (20, 0.5)], 0.4) is None
