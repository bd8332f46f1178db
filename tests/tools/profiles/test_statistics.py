"""Means, their intervals and paired tests against tables, scipy and brute force."""

import itertools
import math
from fractions import Fraction
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from self_pruner.tools.profiles.statistics import ALPHA, ENUMERATED, mean_interval, paired_test, stratified_mean
from tests.agent.compare.invented import steady

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 29: 2.0452, 30: 2.0423, 120: 1.9799}
WHOLE = st.integers(-1000, 1000).filter(bool)


@pytest.mark.parametrize(("degrees", "quantile"), TABLE.items())
def test_the_interval_is_as_wide_as_the_printed_tables_of_student_say(degrees, quantile):
    values = [0.0] * (degrees - degrees // 2) + [1.0] * (degrees // 2 + 1)
    error = stdev(values) / math.sqrt(degrees + 1)
    assert mean_interval(values).half_width == pytest.approx(quantile * error, abs=5e-5)


def test_the_interval_of_a_mean_is_students():
    found = mean_interval([1.0, 2.0, 3.0])  # standard deviation 1, 2 degrees of freedom
    assert found.value == 2.0
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert (found.low + found.high) / 2 == pytest.approx(2.0)


def test_a_single_value_has_no_interval():
    found = mean_interval([0.7])
    assert (found.value, found.low, found.high, found.half_width, found.n) == (0.7, None, None, None, 1)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5, 0.5]).half_width == 0.0


def test_an_infinite_value_has_no_interval():
    found = mean_interval([1.0, math.inf])
    assert found.value == math.inf and found.low is None


def test_strata_count_the_same_whatever_their_size():
    assert stratified_mean([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0]]).value == 2.0


def test_the_interval_over_strata_measures_what_varies_within_them():
    # variances 2 and 8, so the mean's is (1 + 4) / 4; Satterthwaite: 1 / (0.2**2 + 0.8**2) = 1.47 degrees, so 1
    found = stratified_mean([[1.0, 3.0], [10.0, 14.0]])
    assert found.value == 7.0
    assert found.half_width == pytest.approx(12.7062 * math.sqrt(5) / 2, abs=1e-3)


def test_equal_variances_pool_all_degrees_of_freedom():
    # two strata of three, each of variance 1: four degrees
    found = stratified_mean([[1.0, 2.0, 3.0], [101.0, 102.0, 103.0]])
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2 / 3) / 2, abs=1e-5)


def test_a_stratum_of_one_value_leaves_no_interval():
    assert stratified_mean([[1.0, 2.0], [5.0]]).low is None


def test_the_exponential_of_an_interval_is_that_of_its_ends():
    found = mean_interval([0.0, 1.0])
    assert found.exp().value == pytest.approx(math.exp(0.5))
    assert found.exp().high == pytest.approx(math.exp(found.high))
    assert mean_interval([1000.0]).exp().value == math.inf


def by_all_flips(strata):
    """The share of sign patterns whose mean of stratum means is at least as far from zero, in exact arithmetic."""
    weighted = [Fraction(value, len(stratum)) for stratum in strata for value in stratum]
    seen = abs(sum(weighted))
    patterns = list(itertools.product((1, -1), repeat=len(weighted)))
    far = sum(
        abs(sum(sign * value for sign, value in zip(pattern, weighted, strict=True))) >= seen for pattern in patterns
    )
    return far / len(patterns)


@steady
@given(st.lists(st.lists(WHOLE, min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_p_value_is_the_share_of_flips_at_least_as_extreme(strata):
    found = paired_test([[float(value) for value in stratum] for stratum in strata])
    assert found.p == pytest.approx(by_all_flips(strata))
    assert found.value == pytest.approx(fmean(map(fmean, strata)))
    assert found.least_p == pytest.approx(2 / 2**found.n)


@steady
@given(st.lists(st.lists(WHOLE, min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_interval_leaves_out_zero_exactly_where_the_test_does(strata):
    found = paired_test([[float(value) for value in stratum] for stratum in strata])
    assume(found.exact)
    assert (found.low > 1e-9 or found.high < -1e-9) == (found.p <= ALPHA)


@steady
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=9, unique=True))
def test_the_interval_ends_where_the_test_of_a_shift_starts_to_reject(values):
    found = paired_test([values])
    width = found.high - found.low
    assume(width > 1e-3)
    for end, outwards in ((found.low, -1), (found.high, 1)):
        outside = paired_test([[value - end - outwards * 1e-6 for value in values]])
        inside = paired_test([[value - end + outwards * 1e-6 for value in values]])
        assert outside.p <= ALPHA < inside.p


@steady
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_the_other_way_round_the_test_says_the_opposite(values):
    found, turned = paired_test([values]), paired_test([[-value for value in values]])
    assert found.p == pytest.approx(turned.p)
    assert found.value == pytest.approx(-turned.value)
    if found.low is not None:
        assert (found.low, found.high) == (pytest.approx(-turned.high), pytest.approx(-turned.low))


def test_five_pairs_can_never_be_told_apart_and_six_can():
    five = paired_test([[-0.1, -0.2, -0.3, -0.4, -0.5]])
    assert (five.p, five.least_p, five.verdict, five.exact) == (0.0625, 0.0625, "too few pairs", False)
    six = paired_test([[-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]])
    assert (six.p, six.verdict, six.exact) == (0.03125, "below", True)
    assert (six.low, six.high) == (-0.6, -0.1)  # all of what six differences of one sign allow at 95%


def test_verdicts_follow_the_sign_and_the_p_value():
    assert paired_test([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]).verdict == "above"
    assert paired_test([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]]).verdict == "not distinguished"


def test_few_pairs_have_students_interval_within_strata():
    found = paired_test([[1.0, 3.0], [10.0, 14.0]])
    assert (found.low + found.high) / 2 == pytest.approx(7.0)
    assert found.high - found.low == pytest.approx(12.7062 * math.sqrt(5), abs=1e-3)
    assert paired_test([[1.0], [2.0], [3.0]]).low is None  # one a stratum: nothing varies within


def test_no_difference_at_all_is_not_told_apart():
    found = paired_test([[0.0] * 6])
    assert (found.p, found.value, found.verdict) == (1.0, 0.0, "not distinguished")


def test_beyond_what_can_be_counted_the_test_samples_and_stays_close():
    values = [3, -1, 4, 1, -5, 9, 2, -6, 5, 3, 5, -8, 9, 7, -9, 3, 2, 3]
    assert len(values) > ENUMERATED
    ways = {0: 1}  # signed sums of all sign patterns, counted
    for value in values:
        following: dict[int, int] = {}
        for total, count in ways.items():
            for sign in (1, -1):
                following[total + sign * value] = following.get(total + sign * value, 0) + count
        ways = following
    exact = sum(count for total, count in ways.items() if abs(total) >= abs(sum(values))) / 2 ** len(values)
    found = paired_test([[float(value) for value in values]])
    assert found.p == pytest.approx(exact, abs=0.02)
    assert found == paired_test([[float(value) for value in values]])
    assert (found.low > 0) == (found.p <= ALPHA)


@steady
@given(st.lists(st.floats(-5, 5).map(lambda value: round(value, 9)), min_size=2, max_size=8))  # less is rounding to us
def test_of_one_stratum_the_sign_flip_test_is_scipys(values):
    found = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assume(abs(fmean(values)) > 1e-6)
    assert paired_test([values]).p == pytest.approx(found.pvalue)
