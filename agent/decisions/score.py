"""What a brain's choices are worth: its figures on every situation, and their means over situations.

Every situation is asked in up to four orders of its options, each a quarter further (the rows of a Latin square of
quarters): every quarter of the options is read first once, second once, and so on. So what a brain gives to whatever
is read first cancels out of its gain, and is a figure of its own. A prompt that names what it names in an order of its
own is the same in all of them: then nothing cancels, and nothing is known of that figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from self_pruner.agent.decisions.choosers import EXACT, Chooser, Said
from self_pruner.agent.decisions.decision_set import DecisionSituation
from self_pruner.agent.decisions.kinds import KINDS
from self_pruner.agent.decisions.kinds.kind import orders_of
from self_pruner.agent.decisions.predictions import Predicted, means, predicted
from self_pruner.agent.decisions.statistics import TIE, bootstrap_mean
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.profiles.statistics import IntervalEstimate, share_interval


@dataclass(frozen=True, slots=True)
class Decided:
    """One situation as a brain decides it; gains and regret in nats a token, positive gains are good."""

    situation: str
    kind: str
    gain: float  # expected outcome of a uniform choice, less that of the brain's
    over_tool: float  # outcome of the tool's own choice, less the brain's expected one
    regret: float  # the brain's expected outcome, less the best one
    room: float  # expected outcome of a uniform choice, less the best one: the most that can be gained
    entropy: float  # of its probabilities, the mean over orders, nats
    most_entropy: float  # that of a uniform choice
    # Probability that goes to the quarter of the options read first, less its share of options; None where the prompt
    # is the same in every order.
    first_quarter: float | None
    prompt_tokens: float  # of one prompt
    read: float  # tokens that went through the model for one prompt
    seconds: float  # for one prompt
    illegal: int  # replies that were no option
    predicted: Predicted | None = None  # of kinds in which the brain says what it expects
    # Expected improvement of its choice, less that of a uniform one; None of kinds that propose nothing, and in files
    # of before it was kept.
    improvement: float | None = None


@dataclass(frozen=True)
class Row:
    """A brain with a prompt set on all situations of one kind."""

    brain: str
    prompts: str
    how: str  # exact, or by how many samples
    kind: str
    decided: tuple[Decided, ...]
    # None in what follows: not known, in a file of before it was kept; or there is none, as of a control.
    stamp: str | None = None  # digest of the outcomes of their situations
    temperature: float | None = None
    digest: str | None = None  # of the files of the prompt set
    fingerprint: str | None = None  # of the brain's config and weights; None also of one behind an endpoint
    place: str | None = None  # the folder that the brain's is in, or its owner on the hub

    def is_again(self, other: Row) -> bool:
        """Whether this is the same as another row, as far as is known, scored anew: then it takes its place."""
        mine, theirs = ((row.brain, row.prompts, row.how, row.kind) for row in (self, other))
        known, there = ((row.temperature, row.digest, row.fingerprint) for row in (self, other))
        return mine == theirs and all(map(_agree, known, there))

    def mean(self, value: Callable[[Decided], float]) -> IntervalEstimate:
        """The mean of a figure over situations."""
        return bootstrap_mean([value(one) for one in self.decided])

    @property
    def sampled(self) -> bool:
        """Whether its probabilities are shares of samples."""
        return self.how.partition(",")[0] != EXACT

    @property
    def first_quarter(self) -> IntervalEstimate | None:
        """The mean of that figure over the situations in which the order was varied; None where it never was."""
        known = [one.first_quarter for one in self.decided if one.first_quarter is not None]
        return bootstrap_mean(known) if known else None

    @property
    def predictions(self) -> list[Predicted]:
        """What it expected of its choices; [] where it was not asked, or by a version that did not ask."""
        return [one.predicted for one in self.decided if one.predicted is not None]

    @property
    def improvement(self) -> IntervalEstimate | None:
        """The mean expected improvement less that of chance, nats a token; None where it is not known of each."""
        known = [one.improvement for one in self.decided if one.improvement is not None]
        return bootstrap_mean(known) if len(known) == len(self.decided) else None

    @property
    def better(self) -> IntervalEstimate | None:
        """The share of situations with a gain; ties are left out."""
        told = [one for one in self.decided if abs(one.gain) > TIE]
        return share_interval(sum(one.gain > 0 for one in told), len(told))


def decide(situation: DecisionSituation, chooser: Chooser, prompts: PromptSet) -> Decided:
    """One situation, asked in every order.

    Raises:
        BrainError: the brain cannot answer.
        PromptError: a template fails on it.
    """
    kind, options = KINDS[situation.kind], situation.options
    orders = orders_of(len(options))
    stated = [kind.stated(option.call) for option in options]
    words = len(stated[0])
    asked: list[list[list[float]]] = []  # probabilities by order, option and word
    first: list[float] = []
    entropies: list[float] = []
    costs: list[Said] = []
    for number, order in enumerate(orders):
        variables = kind.shown(situation.variables, [options[index].call for index in order])
        there = range(words) if number % 2 == 0 else range(words)[::-1]  # each word is first as often as last
        places = [(index, word) for index in order for word in there]
        calls = [stated[index][word] for index, word in places]
        said = chooser.choose(prompts, variables, kind.tool(situation, calls), calls, f"{situation.id}/{number}")
        asked.append([[0.0] * words for _ in options])
        for (index, word), probability in zip(places, said.probabilities, strict=True):
            asked[-1][index][word] = probability
        taken = list(map(sum, asked[-1]))
        quarter = len(options) // len(orders)
        first.append(sum(taken[index] for index in order[:quarter]) - quarter / len(options))
        entropies.append(entropy(taken))
        costs.append(said)
    found = worth(situation, [fmean(map(sum, rows)) for rows in zip(*asked, strict=True)], costs)
    told = means([predicted(situation, rows) for rows in asked]) if words > 1 else None
    varied = len({said.shown for said in costs}) > 1
    return replace(found, first_quarter=fmean(first) if varied else None, entropy=fmean(entropies), predicted=told)


def always(situation: DecisionSituation, option: int) -> Decided:
    """One situation as decided by whoever takes that option, wherever it is read."""
    return worth(situation, [float(index == option) for index in range(len(situation.options))])


def worth(situation: DecisionSituation, probabilities: Sequence[float], costs: Sequence[Said] = ()) -> Decided:
    """What probabilities of the options, in the order of the set, are worth."""
    outcomes = situation.outcomes
    expected = sum(probability * outcome for probability, outcome in zip(probabilities, outcomes, strict=True))
    chance, best = fmean(outcomes), min(outcomes)
    better = [max(0.0, -outcome) for outcome in outcomes]  # what is left of an option where only what is better is kept
    kept = sum(probability * each for probability, each in zip(probabilities, better, strict=True))
    return Decided(
        situation=situation.id,
        kind=situation.kind,
        gain=chance - expected,
        over_tool=outcomes[situation.tool] - expected,
        regret=expected - best,
        room=chance - best,
        entropy=entropy(probabilities),
        most_entropy=math.log(len(outcomes)),
        first_quarter=None,
        prompt_tokens=_mean([said.prompt_tokens for said in costs]),
        read=_mean([said.read for said in costs]),
        seconds=_mean([said.seconds for said in costs]),
        illegal=sum(said.illegal for said in costs),
        improvement=kept - fmean(better) if KINDS[situation.kind].proposes else None,
    )


def entropy(probabilities: Sequence[float]) -> float:
    """The entropy of a distribution, in nats."""
    return -sum(probability * math.log(probability) for probability in probabilities if probability > 0)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


def comparable(first: Row, second: Row) -> bool:
    """Whether two rows differ in their prompts alone, as far as is known."""
    if (first.brain, first.how, first.kind) != (second.brain, second.how, second.kind):
        return False
    if not (_agree(first.temperature, second.temperature) and _agree(first.fingerprint, second.fingerprint)):
        return False
    return first.prompts != second.prompts or not _agree(first.digest, second.digest)


def _agree(one: str | float | None, other: str | float | None) -> bool:
    return one is None or other is None or one == other


def paired_gains(first: Sequence[Decided], second: Sequence[Decided]) -> list[float]:
    """The gain of the first less that of the second, situation by situation; of situations that both have."""
    others = {one.situation: one.gain for one in second}
    return [one.gain - others[one.situation] for one in first if one.situation in others]
