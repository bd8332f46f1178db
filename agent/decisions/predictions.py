"""What a brain expects of its choices, beside what came of them: are its predictions calibrated?

A brain that is asked what it expects gives every option a probability for each of three words. What came is judged as
in a search: within one standard error of the reference nothing has changed. The Brier score (Brier 1950, over three
classes: 0 is always sure and right, 2 always sure and wrong) stands beside that of whoever knows nothing of an option,
and gives each word the share in which it comes true.

A search asks once, so every order of the options is scored by itself: a mean of predictions over orders is a better
forecast than any of them. Of a brain that is sampled the score is not shown: few replies are surer than who wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from self_pruner.agent.decisions.decision_set import DecisionSituation
from self_pruner.tools.profiles.shifts import EXPECTATIONS, what_came


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of one situation, over its options as often as the brain takes them; in the order of `EXPECTATIONS`."""

    said: tuple[float, ...]  # the probability of each word
    came: tuple[float, ...]  # the share of the options for which it was the right one
    brier: float  # the expected Brier score of one prompt's predictions; too high by their noise where they are shares


def predicted(situation: DecisionSituation, probabilities: Sequence[Sequence[float]]) -> Predicted:
    """What the probabilities of every option with every word come to, as one prompt has them.

    Args:
        situation: one that is measured.
        probabilities: [option][word], which add up to 1 over all of them.
    """
    said, came, brier = [0.0] * len(EXPECTATIONS), [0.0] * len(EXPECTATIONS), 0.0
    for option, outcome, row in zip(situation.options, situation.outcomes, probabilities, strict=True):
        taken, right = sum(row), EXPECTATIONS.index(what_came(outcome, option.error))
        came[right] += taken
        for word, probability in enumerate(row):
            said[word] += probability
            if taken > 0:
                brier += taken * (probability / taken - (word == right)) ** 2
    return Predicted(tuple(said), tuple(came), brier)


def means(rows: Sequence[Predicted]) -> Predicted:
    """The mean over situations, or over the orders of one; of at least one."""
    said = tuple(map(fmean, zip(*(one.said for one in rows), strict=True)))
    came = tuple(map(fmean, zip(*(one.came for one in rows), strict=True)))
    return Predicted(said, came, fmean(one.brier for one in rows))


def excess_of(rows: Sequence[Predicted]) -> list[float]:
    """The Brier score of each situation, less that of whoever knows the frequencies alone: below 0 is good."""
    frequencies = means(rows).came
    squares = sum(share**2 for share in frequencies)
    bare = [1 - 2 * sum(a * b for a, b in zip(frequencies, one.came, strict=True)) + squares for one in rows]
    return [one.brier - score for score, one in zip(bare, rows, strict=True)]
