"""The charts: round ticks, everything within the chart and where its value says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.charts import FIGURE, LABEL, WIDTH, Axis, Dot, Series, curve_chart, dot_chart
from self_pruner.agent.compare.statistics import IntervalEstimate
from tests.agent.compare.invented import steady

VALUES = st.floats(1, 1e5)


def dot(label, value, low=None, high=None, text=""):
    return Dot(label, IntervalEstimate(value, low, high, 1), text)


def series(name, *curves):
    return Series(name, list(curves), curves[0])


def level(name, value):
    return Series(name, [], [], value)


@steady
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_on_the_axis(low, span):
    axis = Axis(low, low + span, 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 6
    slack = 1e-6 * max(abs(low), span)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 3) in (1, 2, 5, 10)


@steady
@given(st.floats(1e-3, 1e3), st.floats(1.5, 1e4))
def test_logarithmic_ticks_are_on_the_axis(low, ratio):
    axis = Axis(low, low * ratio, 0, 100, log=True)
    ticks = axis.ticks()
    assert len(ticks) >= 2 and all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in ticks)


def test_a_logarithmic_axis_places_by_ratio():
    axis = Axis(10, 1000, 0, 200, log=True)
    assert [axis.at(value) for value in (10, 100, 1000, 5000)] == [0, 100, 200, 200]


@steady
@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=8), st.booleans())
def test_dots_and_whiskers_stay_within_the_chart(rows, log):
    dots = [dot(str(number), value, value - low, value + high) for number, (value, low, high) in enumerate(rows)]
    chart = dot_chart("", dots, str, log=log)
    assert chart.rows == dots
    for index, row in enumerate(dots):
        low, x, high = (chart.axis.at(one) for one in (row.estimate.low, row.estimate.value, row.estimate.high))
        assert LABEL <= low <= x <= high <= WIDTH - FIGURE and 0 < chart.y(index) < chart.height
        assert chart.axis.low < row.estimate.value < chart.axis.high


def test_an_axis_follows_an_interval_that_is_far_wider_than_the_values_only_so_far():
    axis = dot_chart("", [dot("a", 10.0, -500.0, 520.0), dot("b", 12.0, 11.5, 12.5)], str).axis
    assert (axis.low, axis.high) == pytest.approx((10 - 0.84 * 2, 12 + 0.84 * 2))


def test_a_single_value_is_drawn_and_an_infinite_one_left_out():
    assert len(dot_chart("", [dot("a", 43.0)], str).rows) == 1
    assert [row.arm for row in dot_chart("", [dot("a", math.inf), dot("b", 0.0)], str).rows] == ["b"]
    assert dot_chart("", [], str) is None


def test_the_line_of_no_difference_is_on_the_axis_of_a_forest():
    chart = dot_chart("", [dot("a", -10.0, -11.0, -9.0)], str, reference=0.0)
    assert chart.axis.at(-10.0) < chart.axis.at(chart.reference) <= WIDTH - FIGURE


def test_curves_run_from_left_to_right_and_better_is_further_down():
    chart = curve_chart("", [series("a", [(0.0, 1.0), (10.0, 0.5), (20.0, 0.5)])])
    assert chart.x.start < chart.x.at(0.0) < chart.x.at(10.0) < chart.x.at(20.0) < chart.x.end
    assert 0 < chart.y.at(1.0) < chart.y.at(0.5) < chart.height


def test_a_level_near_the_curves_is_on_the_axis_and_one_far_off_is_not():
    chart = curve_chart("", [series("a", [(0.0, 1.0), (10.0, 0.5)]), level("near", 1.2), level("far", 50.0)])
    assert chart.y.low < 0.5 and 1.2 < chart.y.high < 1.3


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_equal_values_still_make_an_axis(value):
    chart = curve_chart("", [series("a", [(value, value), (value, value)])])
    assert chart.x.ticks() and chart.y.ticks() and math.isfinite(chart.x.at(value))


def test_without_curves_there_is_no_chart():
    assert curve_chart("", [level("a", 1.0)]) is None


def test_a_chart_says_its_figures_in_words():
    chart = curve_chart("", [series("a", [(0.0, 1.0), (2000.0, 0.5)]), level("b", 0.7)])
    assert chart.description == "a ends at 0.5000 after 2,000 tokens; b is at 0.7000"
    assert dot_chart("", [dot("a", 1.0, text="1.00")], str).description == "a: 1.00"
