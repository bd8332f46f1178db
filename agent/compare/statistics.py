"""Means, intervals and tests that suit few seeds: pure functions of numbers.

Intervals of a mean are Student's, pooled over strata without assuming one variance (Welch 1947; Satterthwaite 1946).
Paired differences are tested by flipping their signs (Fisher 1935), which assumes no more than that chance alone would
have made each as likely to be positive as negative. The interval beside it is that test turned round: by Hartigan
(1969) the means of all non-empty subsets of n differences cut the line into 2**n equally likely parts, so the interval
leaves out zero exactly where the test does.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, variance
from typing import Literal

LEVEL = 0.95
ALPHA = 0.05  # 1 - LEVEL, as it is written
ENUMERATED = 16  # pairs up to which all subsets are counted
SAMPLED = 2**14  # sign patterns beyond: the one that was seen and drawn ones
ROUNDING = 1e-12  # relative size of a sum that counts as zero

Verdict = Literal["below", "above", "not distinguished", "too few pairs"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval, which is None where there is nothing to measure the spread by."""

    value: float
    low: float | None
    high: float | None
    n: int  # how many values it is made of

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def exp(self) -> Estimate:
        """The estimate of a logarithm as one of the thing itself."""
        return Estimate(
            _exp(self.value),
            None if self.low is None else _exp(self.low),
            None if self.high is None else _exp(self.high),
            self.n,
        )


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The mean of paired differences (one arm less another), its interval and its test."""

    mean: float
    low: float | None
    high: float | None
    n: int  # pairs
    p: float | None  # two-sided; None where neither arm varies with the seed
    least_p: float | None  # the smallest that so many pairs allow
    exact: bool  # the interval is the test turned round; else Student's, which assumes a normal spread

    @property
    def verdict(self) -> Verdict:
        """What the test says of the first arm, at 5%."""
        if self.p is None or self.least_p is None or self.least_p > ALPHA:
            return "too few pairs"
        if self.p > ALPHA:
            return "not distinguished"
        return "below" if self.mean < 0 else "above"


def t_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) for Student's T with an integer number of degrees of freedom: the finite sums of its closed form."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = degrees % 2
    term, total = (math.cos(theta), 0.0) if odd else (1.0, 0.0)
    for k in range(odd, degrees - 1, 2):  # cos**k times its coefficient, for k below degrees - 1
        total += term
        term *= square * (k + 1) / (k + 2)
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


@cache
def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """The t with P(|T| <= t) = `level`, by bisection on its angle."""
    if degrees < 1:
        raise ValueError(f"degrees of freedom are at least 1, got {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if t_probability(math.sqrt(degrees) * math.tan(middle), degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean of `values` (at least one) with Student's interval."""
    return stratified_mean([values])


def stratified_mean(strata: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the strata's means, each stratum counting the same, with an interval for what varies within them.

    There is no interval where a stratum has a single value. Degrees of freedom are Welch's and Satterthwaite's, rounded
    down.

    Args:
        strata: at least one, each of at least one value.
    """
    n = sum(map(len, strata))
    value = fmean(map(fmean, strata))
    if min(map(len, strata)) < 2 or not math.isfinite(value):
        return Estimate(value, None, None, n)
    parts = [variance(stratum) / len(stratum) for stratum in strata]
    total = sum(parts)
    if not total:
        return Estimate(value, value, value, n)
    shares = [part / total for part in parts]
    degrees = 1 / sum(share**2 / (len(stratum) - 1) for share, stratum in zip(shares, strata, strict=True))
    half = t_quantile(math.floor(degrees + 1e-9)) * math.sqrt(total) / len(strata)
    return Estimate(value, value - half, value + half, n)


def paired_test(strata: Sequence[Sequence[float]]) -> PairedTest:
    """The sign-flip test of paired differences, and their mean with an interval; each stratum counts the same.

    The interval is the test turned round where there are pairs enough for one (six at 95%), and Student's within strata
    otherwise.

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
    if outside:
        return PairedTest(spread.value, means[outside - 1], means[-outside], spread.n, p, least, exact=True)
    return PairedTest(spread.value, spread.low, spread.high, spread.n, p, least, exact=False)


def untested(values: Sequence[float]) -> PairedTest:
    """The mean of differences in which nothing is left to chance, so that there is nothing to test."""
    return PairedTest(fmean(values), None, None, len(values), None, None, exact=False)


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


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf
