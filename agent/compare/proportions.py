"""Shares and their differences: pure functions of counts.

A share has Wilson's interval (1927), a difference of two Newcombe's hybrid of two of those (1998, method 10). Where the
counts come from several runs, each a stratum of its own, the difference is Mantel's and Haenszel's (1959) with Sato's
variance (1989), and the test is the exact form of theirs: the improvements of every stratum are dealt out at random
among its candidates, so nothing is assumed of how strata differ. With a single stratum it is Fisher's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from self_pruner.agent.compare.statistics import LEVEL, Estimate

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
TIES = 1e-9  # relative difference below which two probabilities are one


@dataclass(frozen=True, slots=True)
class TwoShares:
    """How many of two groups had success: one stratum."""

    hits: int
    n: int
    other_hits: int
    other_n: int


def wilson(hits: int, n: int) -> Estimate | None:
    """The share `hits` of `n` with its interval; None where there is nothing to take a share of."""
    if not n:
        return None
    share = hits / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low = 0.0 if not hits else centre - half  # at the ends the formula is exact but for rounding
    return Estimate(share, low, 1.0 if hits == n else centre + half, n)


def newcombe(shares: TwoShares) -> Estimate | None:
    """The first share less the second with its interval; None where either group is empty."""
    first, second = wilson(shares.hits, shares.n), wilson(shares.other_hits, shares.other_n)
    if first is None or second is None:
        return None
    low1, high1, low2, high2 = first.low or 0.0, first.high or 0.0, second.low or 0.0, second.high or 0.0
    difference = first.value - second.value
    low = difference - math.hypot(first.value - low1, high2 - second.value)
    high = difference + math.hypot(high1 - first.value, second.value - low2)
    return Estimate(difference, low, high, shares.n + shares.other_n)


def mantel_haenszel(strata: Sequence[TwoShares]) -> Estimate | None:
    """The first share less the second within strata, with its interval; None where no stratum has both groups."""
    both = [one for one in strata if one.n and one.other_n]
    if not both:
        return None
    weight = difference = p_sum = q_sum = 0.0
    for one in both:
        total = one.n + one.other_n
        weight += one.n * one.other_n / total
        difference += (one.hits * one.other_n - one.other_hits * one.n) / total
        p_sum += (
            one.n**2 * one.other_hits - one.other_n**2 * one.hits + one.n * one.other_n * (one.other_n - one.n) / 2
        ) / total**2
        q_sum += (one.hits * (one.other_n - one.other_hits) + one.other_hits * (one.n - one.hits)) / (2 * total)
    value = difference / weight
    half = Z * math.sqrt(max(0.0, value * p_sum + q_sum)) / weight
    size = sum(one.n + one.other_n for one in both)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), size)


def exact_test(strata: Sequence[TwoShares]) -> tuple[float, float]:
    """Two-sided p-value that within every stratum both groups have one chance of success, and the least possible one.

    Both are 1 where nothing can tell: no stratum has both groups, or all succeeded or failed together.
    """
    distribution, seen = [1.0], 0  # of the first group's successes over the strata so far, from the least possible on
    for one in strata:
        total = one.hits + one.other_hits
        first = max(0, total - one.other_n)
        ways = [math.comb(one.n, k) * math.comb(one.other_n, total - k) for k in range(first, min(one.n, total) + 1)]
        whole = math.comb(one.n + one.other_n, total)
        shares = [way / whole for way in ways]
        longer = [0.0] * (len(distribution) + len(shares) - 1)
        for i, known in enumerate(distribution):
            for j, share in enumerate(shares):
                longer[i + j] += known * share
        distribution, seen = longer, seen + one.hits - first
    return _as_unlikely(distribution, distribution[seen]), _as_unlikely(distribution, min(distribution))


def _as_unlikely(distribution: Sequence[float], chance: float) -> float:
    """Probability of whatever is no likelier than `chance`."""
    return min(1.0, math.fsum(one for one in distribution if one <= chance * (1 + TIES)))
