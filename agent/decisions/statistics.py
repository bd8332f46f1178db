"""Means over situations with bootstrap intervals, and how many situations would tell: pure functions of numbers.

The percentile bootstrap (Efron 1979) is scipy's, over situations and with a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from scipy.stats import bootstrap, norm

from self_pruner.tools.profiles.statistics import LEVEL, IntervalEstimate, Z

RESAMPLES = 9999
ENOUGH = 6  # values below which nothing is told, as in the sign-flip test of a comparison
TIE = 1e-12  # size below which a difference, in nats a token or of scores, is rounding and none
POWER = 0.8  # with which so many situations would find a difference that is as large as it looks


def bootstrap_mean(values: Sequence[float]) -> IntervalEstimate:
    """The mean of `values` (at least one) with its 95% bootstrap interval; none of a single value."""
    value = fmean(values)
    if len(values) < 2:
        return IntervalEstimate(value, None, None, len(values))
    if max(values) == min(values):
        return IntervalEstimate(value, value, value, len(values))
    found = bootstrap(
        (np.asarray(values),), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    return IntervalEstimate(value, float(found.low), float(found.high), len(values))


def apart(estimate: IntervalEstimate) -> bool:
    """Whether the interval leaves out zero; of few values a bootstrap is too sure, so they never tell, nor do ties."""
    return (
        estimate.n >= ENOUGH
        and abs(estimate.value) > TIE
        and estimate.low is not None
        and estimate.high is not None
        and (estimate.low > 0 or estimate.high < 0)
    )


def more_needed(values: Sequence[float]) -> int | None:
    """How many values more would tell their mean from zero, four times in five, if mean and spread are as they look.

    By the normal approximation; None where nothing varies or the mean is zero.
    """
    if len(values) < 2 or not (mean := fmean(values)) or not (spread := stdev(values)):
        return None
    needed = ((Z + float(norm.ppf(POWER))) * spread / abs(mean)) ** 2
    return max(0, math.ceil(needed) - len(values))
