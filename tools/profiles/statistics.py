"""Means, shares, their intervals and their tests, for few seeds: pure functions of numbers.

Student's, Wilson's and the hypergeometric distribution are scipy's. Three things that scipy lacks are here:

- The mean over strata, each counting the same, with Welch's and Satterthwaite's degrees of freedom (1946, 1947).
- The interval that belongs to the sign-flip test of paired differences (Fisher 1935). By Hartigan (1969) the means of
  all non-empty subsets of n differences cut the line into 2**n equally likely parts. So the test and its interval are
  read from the same numbers, and the interval leaves out zero exactly where the test does.
- The difference of two shares: Newcombe's (1998, method 10), and within strata Mantel's and Haenszel's (1959), which
  has no interval here. Its exact test deals out the successes of every stratum at random among its members. With a
  single stratum it is Fisher's.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

import numpy as np
from scipy.stats import binomtest, hypergeom, norm, t

LEVEL = 0.95
ALPHA = 0.05  # 1 - LEVEL, as it is written
Z = float(norm.ppf((1 + LEVEL) / 2))
ENUMERATED = 16  # pairs up to which all subsets are counted
SAMPLED = 2**14  # sign patterns beyond: the one that was seen and drawn ones
ROUNDING = 1e-12  # relative size of a sum that counts as zero
TIES = 1e-9  # relative difference below which two probabilities are one


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A figure with its 95% interval, which is None where there is nothing to measure the spread by."""

    value: float
    low: float | None
    high: float | None
    n: int  # how many values it is made of

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def exp(self) -> IntervalEstimate:
        """The estimate of a logarithm as one of the thing itself."""
        low, high = (None if end is None else _exp(end) for end in (self.low, self.high))
        return IntervalEstimate(_exp(self.value), low, high, self.n)


@dataclass(frozen=True, slots=True)
class PairedTest(IntervalEstimate):
    """The mean of `n` paired differences (one arm less another), its interval and its test."""

    p: float | None  # two-sided; None where neither arm varies with the seed
    least_p: float | None  # the smallest that so many pairs allow
    exact: bool  # the interval belongs to the test; else it is Student's, which assumes a normal spread

    @property
    def verdict(self) -> Literal["below", "above", "not distinguished", "too few pairs"]:
        """What the test says of the first arm, at 5%."""
        if self.p is None or self.least_p is None or self.least_p > ALPHA:
            return "too few pairs"
        if self.p > ALPHA:
            return "not distinguished"
        return "below" if self.value < 0 else "above"


@dataclass(frozen=True, slots=True)
class TwoShares:
    """How many of two groups had success: one stratum."""

    hits: int
    n: int
    other_hits: int
    other_n: int


# --- means --------------------------------------------------------------------------------------------------------


def mean_interval(values: Sequence[float]) -> IntervalEstimate:
    """The mean of `values` (at least one) with Student's interval."""
    return stratified_mean([values])


def stratified_mean(strata: Sequence[Sequence[float]]) -> IntervalEstimate:
    """The mean of the strata's means, each stratum counting the same, with an interval for what varies within them.

    There is no interval where a stratum has a single value. Degrees of freedom are rounded down.

    Args:
        strata: at least one, each of at least one value.
    """
    n = sum(map(len, strata))
    value = fmean(map(fmean, strata))
    if min(map(len, strata)) < 2 or not math.isfinite(value):
        return IntervalEstimate(value, None, None, n)
    parts = [variance(stratum) / len(stratum) for stratum in strata]
    total = sum(parts)
    if not total:
        return IntervalEstimate(value, value, value, n)
    shares = [part / total for part in parts]
    degrees = 1 / sum(share**2 / (len(stratum) - 1) for share, stratum in zip(shares, strata, strict=True))
    quantile = float(t.ppf((1 + LEVEL) / 2, math.floor(degrees + 1e-9)))
    half = quantile * math.sqrt(total) / len(strata)
    return IntervalEstimate(value, value - half, value + half, n)


def paired_test(strata: Sequence[Sequence[float]]) -> PairedTest:
    """The sign-flip test of paired differences, and their mean with an interval; each stratum counts the same.

    The interval is Hartigan's where there are pairs enough for one (six at 95%), and Student's within strata otherwise.

    Args:
        strata: differences, by what is not left to chance (the sparsity); at least one, each of at least one value.
    """
    spread = stratified_mean(strata)
    weighted = [(value, 1 / len(stratum)) for stratum in strata for value in stratum]
    means, patterns = _subset_means(weighted)
    tolerance = ROUNDING * max(abs(value) for value, _ in weighted)
    at_most = bisect_right(means, tolerance)  # of the subsets, how many have a mean of zero or less
    at_least = len(means) - bisect_left(means, -tolerance)
    p = min(1.0, 2 * (1 + min(at_most, at_least)) / patterns)
    least = min(1.0, 2 / patterns)
    outside = math.floor(ALPHA / 2 * patterns + 1e-9)  # subset means left out at either end
    low, high = (means[outside - 1], means[-outside]) if outside else (spread.low, spread.high)
    return PairedTest(spread.value, low, high, spread.n, p, least, exact=outside > 0)


def _subset_means(weighted: Sequence[tuple[float, float]]) -> tuple[list[float], int]:
    """Sorted weighted means of non-empty subsets, all or a fixed sample, and how many sign patterns they stand for."""
    if len(weighted) <= ENUMERATED:
        sums, weights = [0.0], [0.0]
        for value, weight in weighted:
            sums += [total + weight * value for total in sums]
            weights += [total + weight for total in weights]
        return sorted(total / weight for total, weight in zip(sums[1:], weights[1:], strict=True)), len(sums)
    rng = random.Random(0)
    means: list[float] = []
    while len(means) < SAMPLED - 1:
        bits = rng.getrandbits(len(weighted))
        if bits:
            drawn = [pair for index, pair in enumerate(weighted) if bits >> index & 1]
            means.append(sum(value * weight for value, weight in drawn) / sum(weight for _, weight in drawn))
    return sorted(means), SAMPLED


# --- shares -------------------------------------------------------------------------------------------------------


def share_interval(hits: int, n: int) -> IntervalEstimate | None:
    """The share `hits` of `n` with Wilson's interval; None where there is nothing to take a share of."""
    return IntervalEstimate(hits / n, *_wilson(hits, n), n) if n else None


def share_difference(shares: TwoShares) -> IntervalEstimate | None:
    """The first share less the second with Newcombe's interval; None where either group is empty."""
    if not (shares.n and shares.other_n):
        return None
    first, second = shares.hits / shares.n, shares.other_hits / shares.other_n
    (low1, high1), (low2, high2) = _wilson(shares.hits, shares.n), _wilson(shares.other_hits, shares.other_n)
    low = first - second - math.hypot(first - low1, high2 - second)
    high = first - second + math.hypot(high1 - first, second - low2)
    return IntervalEstimate(first - second, low, high, shares.n + shares.other_n)


def stratified_difference(strata: Sequence[TwoShares]) -> float | None:
    """The first share less the second within strata, by Mantel and Haenszel; None where no stratum has both groups.

    Without an interval: those in use are for large strata, and a generation has a handful. `exact_test` is for these.
    """
    both = [one for one in strata if one.n and one.other_n]
    if not both:
        return None
    weight = sum(one.n * one.other_n / (one.n + one.other_n) for one in both)
    return sum((one.hits * one.other_n - one.other_hits * one.n) / (one.n + one.other_n) for one in both) / weight


def exact_test(strata: Sequence[TwoShares]) -> tuple[float, float]:
    """Two-sided p-value that within every stratum both groups have one chance of success, and the least possible one.

    Both are 1 where nothing can tell: no stratum has both groups, or all succeeded or failed together.
    """
    distribution, seen = np.ones(1), 0  # of the first group's successes over the strata so far, from the least on
    for one in strata:
        if not (one.n and one.other_n):
            continue
        hits = one.hits + one.other_hits
        first, last = max(0, hits - one.other_n), min(one.n, hits)
        chances = hypergeom.pmf(np.arange(first, last + 1), one.n + one.other_n, hits, one.n)
        distribution, seen = np.convolve(distribution, chances), seen + one.hits - first
    as_unlikely = distribution[distribution <= distribution[seen] * (1 + TIES)]
    rarest = distribution[distribution <= distribution.min() * (1 + TIES)]
    return min(1.0, math.fsum(as_unlikely)), min(1.0, math.fsum(rarest))


def _wilson(hits: int, n: int) -> tuple[float, float]:
    found = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf
