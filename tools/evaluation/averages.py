"""What the scores of sequences come to: their mean and a perplexity. Without torch, for pages and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """Mean of a per-sequence score; sequences are of equal length, so this is the mean over tokens too."""
    return math.fsum(values) / len(values)


def perplexity(nll: Sequence[float]) -> float:
    """Perplexity from the mean negative log-likelihood (nats a token) of each sequence; infinite if it overflows."""
    average = mean(nll)
    return math.exp(average) if average < 709.0 else math.inf
