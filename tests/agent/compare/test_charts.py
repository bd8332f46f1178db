"""Geometry of the charts: everything lies where its value says, and within the chart."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.charts import (
    APART,
    CURVE_HEIGHT,
    FIGURE,
    LABEL,
    WIDTH,
    Axis,
    Dot,
    Level,
    Series,
    curve_chart,
    dot_chart,
)
from tests.agent.compare.invented import steady

NAMES = (str, str)
VALUES = st.floats(1, 1e5)


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
    dots = [Dot(str(number), value, value - low, value + high, "") for number, (value, low, high) in enumerate(rows)]
    chart = dot_chart("", dots, str, log=log)
    for placed, row in zip(chart.rows, dots, strict=True):
        assert LABEL <= placed.whisker[0] <= placed.x <= placed.whisker[1] <= WIDTH - FIGURE
        assert 0 < placed.y < chart.height and placed.row == row
    ordered = sorted(chart.rows, key=lambda one: one.row.value)
    assert [one.x for one in ordered] == sorted(one.x for one in ordered)


def test_an_interval_that_goes_on_beyond_the_axis_has_an_open_end():
    dots = [Dot("a", 10.0, -500.0, 520.0, ""), Dot("b", 12.0, 11.5, 12.5, "")]
    wide, narrow = dot_chart("", dots, str).rows
    assert wide.ends == (False, False) and narrow.ends == (True, True)


def test_a_single_value_is_drawn_and_an_infinite_one_left_out():
    assert len(dot_chart("", [Dot("a", 43.0, None, None, "")], str).rows) == 1
    assert [
        one.row.label
        for one in dot_chart("", [Dot("a", math.inf, None, None, ""), Dot("b", 0.0, None, None, "")], str).rows
    ] == ["b"]
    assert dot_chart("", [], str) is None


def test_the_line_of_no_difference_is_on_the_axis_of_a_forest():
    chart = dot_chart("", [Dot("a", -10.0, -11.0, -9.0, "")], str, reference=0.0)
    assert chart.rows[0].x < chart.reference <= WIDTH - FIGURE


def series(name, *curves):
    return Series(name, 0, list(curves), curves[0])


def test_a_curve_is_a_staircase_from_left_to_right_and_downwards():
    chart = curve_chart("", [series("a", [(0.0, 1.0), (10.0, 0.5), (20.0, 0.5)])], [], NAMES)
    points = [tuple(map(float, point.split(","))) for point in chart.lines[0].thick.split()]
    assert len(points) == 5
    assert points[0][1] == points[1][1] < points[2][1] == points[3][1] == points[4][1]  # down the page is better
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert (points[0][0], points[-1][0]) == (chart.left, chart.right)
    assert chart.lines[0].thin == []  # of one run the mean is the run


def test_every_run_of_several_has_a_thin_line():
    assert len(curve_chart("", [series("a", [(0.0, 1.0)], [(5.0, 0.5)])], [], NAMES).lines[0].thin) == 2


def test_a_level_far_above_the_curves_is_held_at_the_edge_with_its_value():
    curves = [series("a", [(0.0, 1.0), (10.0, 0.5)])]
    near, far = Level("near", 1, 1.2), Level("far", 2, 50.0)
    lines = {line.name: line for line in curve_chart("", curves, [near, far], NAMES).lines}
    assert set(lines) == {"a", "near", "far (50.0)"}
    assert lines["far (50.0)"].y < lines["near"].y < lines["a"].y


def test_a_run_of_a_single_point_is_drawn():
    chart = curve_chart("", [series("a", [(100.0, 0.5)])], [], NAMES)
    assert all(math.isfinite(float(part)) for part in chart.lines[0].thick.split(","))


def test_without_curves_there_is_no_chart():
    assert curve_chart("", [], [Level("a", 0, 1.0)], NAMES) is None


@steady
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_names_beside_the_curves_do_not_overlap(ends):
    curves = [series(str(number), [(0.0, 1.0), (10.0, end)]) for number, end in enumerate(ends)]
    labels = sorted(line.label for line in curve_chart("", curves, [], NAMES).lines)
    assert all(after - before >= APART - 1e-6 for before, after in zip(labels, labels[1:], strict=False))
    assert labels[0] >= 0 and labels[-1] <= CURVE_HEIGHT


def test_a_chart_says_its_figures_in_words():
    chart = curve_chart("", [series("a", [(0.0, 1.0), (2000.0, 0.5)])], [Level("b", 1, 0.7)], NAMES)
    assert chart.description == "a ends at 0.5000 after 2,000 tokens; b is at 0.7000"
    assert dot_chart("", [Dot("a", 1.0, None, None, "1.00")], str).description == "a: 1.00"


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_equal_values_still_make_an_axis(value):
    chart = curve_chart("", [series("a", [(value, value), (value, value)])], [], NAMES)
    assert chart is not None and chart.x and chart.y
