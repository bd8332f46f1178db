"""Shares, their differences, intervals and tests against published examples, scipy and brute force."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from self_pruner.tools.profiles.statistics import (
    TwoShares,
    exact_test,
    share_difference,
    share_interval,
    stratified_difference,
)
from tests.agent.compare.invented import steady


@st.composite
def strata(draw, most=6):
    n, m = draw(st.integers(0, most)), draw(st.integers(0, most))
    return TwoShares(draw(st.integers(0, n)), n, draw(st.integers(0, m)), m)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
)
def test_wilsons_interval_is_that_of_newcombes_examples(hits, n, low, high):
    found = share_interval(hits, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@steady
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_ends_where_the_score_test_does(counts):
    hits, n = counts
    found = share_interval(hits, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        if 0 < end < 1:
            assert abs(found.value - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)


def test_a_share_of_nothing_is_not_known():
    assert share_interval(0, 0) is None
    assert share_difference(TwoShares(0, 0, 1, 2)) is None
    assert stratified_difference([TwoShares(0, 0, 1, 2), TwoShares(1, 2, 0, 0)]) is None


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 10), 0.6075, 1.0)],
)
def test_the_interval_of_a_difference_is_that_of_newcombes_examples(counts, low, high):
    found = share_difference(TwoShares(*counts))
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@steady
@given(strata())
def test_of_one_stratum_the_difference_is_that_of_the_shares(one):
    found = stratified_difference([one])
    if one.n and one.other_n:
        assert found == pytest.approx(one.hits / one.n - one.other_hits / one.other_n)
    else:
        assert found is None


def test_strata_of_other_rates_do_not_mix():
    # in both the first is 20 points better; pooled it is worse, because it made most of its attempts in the hard one
    found = [TwoShares(30, 100, 1, 10), TwoShares(9, 10, 70, 100)]
    assert stratified_difference(found) == pytest.approx(0.2)
    assert share_difference(TwoShares(39, 110, 71, 110)).value < 0


def test_over_many_small_strata_the_difference_is_the_true_one_on_average():
    rng = random.Random(5)
    found = []
    for _ in range(2000):
        drawn = []
        for _ in range(9):
            rate, n, m = 0.5 * rng.random(), rng.randint(1, 3), rng.randint(1, 3)
            hits = sum(rng.random() < rate + 0.1 for _ in range(n))
            drawn.append(TwoShares(hits, n, sum(rng.random() < rate for _ in range(m)), m))
        found.append(stratified_difference(drawn))
    assert math.fsum(found) / len(found) == pytest.approx(0.1, abs=0.012)


@steady
@given(strata(12))
def test_of_one_stratum_the_exact_test_is_fishers(one):
    table = [[one.hits, one.n - one.hits], [one.other_hits, one.other_n - one.other_hits]]
    assert exact_test([one])[0] == pytest.approx(fisher_exact(table).pvalue)


def test_the_lady_tasting_tea():
    assert exact_test([TwoShares(3, 4, 1, 4)]) == (pytest.approx(34 / 70), pytest.approx(2 / 70))


def by_all_deals(given_strata):
    """p by dealing out the successes of every stratum in every possible way, each way counted."""
    ways = Counter({0: 1})
    for one in given_strata:
        members = one.n + one.other_n
        dealt = Counter(
            sum(place < one.n for place in places)
            for places in itertools.combinations(range(members), one.hits + one.other_hits)
        )
        following = Counter()
        for (known, first), (more, second) in itertools.product(ways.items(), dealt.items()):
            following[known + more] += first * second
        ways = following
    seen = ways[sum(one.hits for one in given_strata)]
    total = sum(ways.values())
    return sum(count for count in ways.values() if count <= seen) / total, min(ways.values()) / total


@steady
@given(st.lists(strata(4), min_size=1, max_size=3))
def test_the_exact_test_counts_every_way_of_dealing_out_the_successes(given_strata):
    p, least = exact_test(given_strata)
    expected, rarest = by_all_deals(given_strata)
    assert p == pytest.approx(expected)
    assert rarest - 1e-12 <= least <= p + 1e-12


def test_strata_that_cannot_tell_add_nothing():
    one = TwoShares(5, 6, 1, 6)
    assert exact_test([one, TwoShares(3, 7, 0, 0), TwoShares(4, 4, 2, 2)]) == exact_test([one])
    assert exact_test([]) == (1.0, 1.0)


@steady
@given(strata(), strata())
def test_with_the_groups_exchanged_the_stratified_difference_turns_round(one, other):
    found = stratified_difference([one, other])
    turned = stratified_difference(
        [TwoShares(each.other_hits, each.other_n, each.hits, each.n) for each in (one, other)]
    )
    assert (found is None) == (turned is None)
    if found is not None:
        assert found == pytest.approx(-turned)
