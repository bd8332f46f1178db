"""The summary of a comparison in sentences, computed from the figures alone, whoever wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import geometric_mean

from self_pruner.agent.compare.figures import (
    PERPLEXITY,
    ComparedArms,
    differences,
    over_seeds,
    reach,
    staircases,
    tested,
    unmeasured,
)
from self_pruner.agent.compare.kinds import brain_of
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.tables import ABSENT, number, percent, percent_change
from self_pruner.agent.compare.worth import BrainWorth, brain_worth
from self_pruner.agent.settings.panels import OWN
from self_pruner.tools.profiles.statistics import IntervalEstimate, PairedTest
from self_pruner.tools.text.quantities import counted

EVOLUTION, SELF = "evolution", "self"


def sentences(results: Results) -> list[str]:
    """Which arm is best; what the brain is worth beside a closed form, plain evolution and chance; what is missing."""
    compared = ComparedArms(results)
    found = [best_sentence(compared)]
    headline = compared.headline
    if headline is not None:
        found += duels(compared, headline)
        found += speed_sentences(compared, headline)
        found += worth_sentences(compared, headline)
    unranked = [arm for arm in results.arms if arm not in compared.ranked]
    if unranked and compared.ranked:
        verb = "was" if len(unranked) == 1 else "were"
        found.append(f"{_list(unranked)} {verb} not measured on every text at every sparsity and so not ranked.")
    if results.missing:
        verb = "is" if len(results.missing) == 1 else "are"
        found.append(f"{counted(len(results.missing), 'run')} {verb} missing, and the figures are of the others.")
    return found


def best_sentence(compared: ComparedArms) -> str:
    """The arm with the lowest perplexity and how sure that is."""
    if not compared.arms:
        return "No run is finished yet."
    if not compared.ranked:
        return "No arm was measured on every text at every sparsity, so none can be called the best."
    best, *others = compared.ranked
    figure = f"{_with_interval(compared, best)}, {_scope(compared)}"
    if not others:
        return f"{best} has a perplexity of {figure}; no other arm can be compared with it."
    second = compared.estimate(others[0], None, PERPLEXITY)
    follows = f"{others[0]} follows with {number(second.value if second else None, 2)}"
    arms = f"{len(compared.ranked)} {'' if compared.ranked == compared.ordered else 'ranked '}arms"
    found = f"Of {arms} {best} has the lowest perplexity, {figure}; {follows}"
    test = over_seeds(compared, best, others[0], PERPLEXITY)
    if test is None:
        return f"{found}."
    if test.p is None:
        return f"{found}, and neither varies with the seed."
    ending = {
        "below": "and the paired test tells the two apart",
        "above": f"but over the {test.n} pairs of runs that both have {others[0]} is better",
        "not distinguished": "which the paired test does not tell from it",
        "too few pairs": "and there are too few pairs of runs to tell the two apart",
    }[test.verdict]
    return f"{found}, {ending}."


def duels(compared: ComparedArms, headline: str) -> list[str]:
    """The headline arm beside the best closed form, plain evolution and the target model alone."""
    if compared.kind(headline) == "closed form":
        return ["Only closed forms were compared: nothing in them is left to chance or to a brain."]
    found = []
    asks_brain = compared.kind(headline) == "brain"
    if not asks_brain:
        found.append("No arm that asks the brain was measured, so nothing is said of its worth.")
    closed = compared.best("closed form")
    if closed is None:
        found.append("There is no closed form to compare with.")
    else:
        found.append(duel(compared, headline, closed, f"the best closed form ({closed})"))
    evolution = compared.best(base=EVOLUTION)
    if evolution is None and asks_brain:
        found.append("There is no plain evolution to compare with.")
    elif evolution not in (None, headline):
        called = "plain evolution" if evolution == EVOLUTION else f"plain evolution ({evolution})"
        found.append(duel(compared, headline, evolution, called))
    alone = compared.best("brain", SELF)
    if alone not in (None, headline) and asks_brain:
        who = "the target model" if brain_of(alone, compared.results.settings) in OWN else "the brain"
        found.append(duel(compared, headline, alone, f"{who} alone ({alone})"))
    return found


def duel(compared: ComparedArms, arm: str, baseline: str, called: str) -> str:
    """Whether `arm` beats `baseline` over pairs of runs, by how much, and whether the test can tell."""
    pairs = differences(compared, arm, baseline, PERPLEXITY)
    test = tested(arm, baseline, pairs)
    if test is None and pairs:
        return f"{arm} is not compared with {called}: {unmeasured(pairs)}."
    if test is None:
        return f"{arm} and {called} have no pair of runs in common."
    where = [percent(sparsity) for sparsity in pairs]
    alone = "" if len(where) == len(compared.sparsities) else f" at {_list(where)}, where both were measured"
    change = f"its perplexity is {_change(test)}{alone}"
    if test.verdict == "too few pairs":
        return f"Too few seeds to tell {arm} from {called}: {change}, and so few allow no p below {_p(test.least_p)}."
    verdict = {"below": "beats", "above": "loses to", "not distinguished": "is not told apart from"}[test.verdict]
    return f"{arm} {verdict} {called}: {change}, p = {_p(test.p)}."


def speed_sentences(compared: ComparedArms, headline: str) -> list[str]:
    """At what share of their tokens the headline arm was as good as plain evolution and the target model alone.

    Nothing is said of one whose fitness is of other tokens.
    """
    found = []
    for baseline in (compared.best(base=EVOLUTION), compared.best("brain", SELF)):
        if baseline is None or baseline == headline:
            continue
        if compared.searched_on(baseline) != compared.searched_on(headline):
            continue
        curves = [
            (staircases(compared, headline, sparsity), staircases(compared, baseline, sparsity))
            for sparsity in compared.sparsities
        ]
        by_sparsity = [reach(own, others) for own, others in curves]
        several = any(len(runs) > 1 for pair in curves for runs in pair)
        who = f"Averaged over seeds, {headline}" if several else headline
        shares = [share for share in by_sparsity if share is not None]
        hits = [share for share in shares if math.isfinite(share)]
        over = f" (geometric mean over {len(shares)} sparsities)" if len(shares) > 1 else ""
        if hits and len(hits) == len(shares):
            tokens = f"{geometric_mean(hits):.0%} of the tokens that {baseline} took{over}"
            found.append(f"{who} reached the final fitness of {baseline} after {tokens}.")
        elif hits:
            found.append(f"{who} reached the final fitness of {baseline} at {len(hits)} of {len(shares)} sparsities.")
        elif shares:
            found.append(f"{who} did not reach the final fitness of {baseline}.")
    return found


def worth_sentences(compared: ComparedArms, headline: str) -> list[str]:
    """What the brain is worth beside chance among the same moves; nothing where no arm asks it."""
    if not any(compared.kind(arm) == "brain" for arm in compared.arms):
        return []
    found = brain_worth(compared.runs(headline))
    if found is None:
        return [
            f"What the brain is worth beside chance is not known: no run of {headline} compared choices of both "
            "with their parents."
        ]
    return [worth_sentence(found)]


def worth_sentence(found: BrainWorth) -> str:
    """The brain's improving share beside that of chance, and whether the test tells them apart."""
    total = found.total
    own, chance = (percent(round(share, 3)) for share in (total.hits / total.n, total.other_hits / total.other_n))
    better = f"{own} of the brain's {counted(total.n, 'candidate')} beat their parents"
    random = f"{chance} of {counted(total.other_n, 'random choice')} among the same legal moves"
    ending = {
        "better": "the brain chose better than chance",
        "worse": "the brain chose worse than chance",
        "not distinguished": "the brain is not shown to choose better or worse than chance",
        "too few": "too few to tell",
    }[found.verdict]
    points = _points(found.pooled)
    if found.strata > 1:
        points += f"; stratified {100 * found.within:+.1f} points"
    return f"{better}, and {random} ({points}; exact test p = {_p(found.p)}): {ending}."


def change_in_words(log_ratio: float) -> str:
    """A difference of logarithms as a change in per cent."""
    change = 100 * math.expm1(log_ratio)
    if not change:
        return "equal"
    size = f"{abs(change):.1f}" if abs(change) >= 0.1 else f"{abs(change):.1g}"
    return f"{size}% {'lower' if change < 0 else 'higher'}"


def _change(test: PairedTest) -> str:
    interval = ""
    if test.low is not None and test.high is not None:
        kind = "95% interval" if test.exact else "Student's 95% interval"
        interval = f"{kind} {percent_change(test.low)} to {percent_change(test.high)}, "
    return f"{change_in_words(test.value)} ({interval}{counted(test.n, 'pair')} of runs)"


def _points(estimate: IntervalEstimate) -> str:
    low, high = 100 * (estimate.low or 0.0), 100 * (estimate.high or 0.0)
    return f"{100 * estimate.value:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}"


def _p(p: float | None) -> str:
    return ABSENT if p is None else f"{p:.2g}"


def _with_interval(compared: ComparedArms, arm: str) -> str:
    estimate = compared.estimate(arm, None, PERPLEXITY)
    if estimate is None or estimate.low is None or estimate.high is None:
        return number(estimate.value if estimate else None, 2)
    counts = {len(compared.runs(arm, sparsity)) for sparsity in compared.sparsities}
    least, most = min(counts), counted(max(counts), "seed")
    seeds = most if len(counts) == 1 else f"{least} to {most}"
    return f"{number(estimate.value, 2)} (95% interval {estimate.low:,.2f} to {estimate.high:,.2f} over {seeds})"


def _scope(compared: ComparedArms) -> str:
    at = _list([percent(sparsity) for sparsity in compared.sparsities])
    texts = compared.texts
    on = f"on {texts[0]}" if len(texts) == 1 else f"geometric mean over {len(texts)} texts"
    return f"{on} at {at} sparsity"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
