"""The summary of a comparison in sentences, computed from the figures alone, whoever wins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from self_pruner.agent.compare.differences import mean_share, over_seeds, paired_runs, reached
from self_pruner.agent.compare.figures import PERPLEXITY, Figures, kind_of
from self_pruner.agent.compare.makers import Worth, worth
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.statistics import Estimate, PairedTest
from self_pruner.agent.compare.table import number, percent

EVOLUTION, SELF = "evolution", "self"


def summary(results: Results) -> str:
    """All of it in one paragraph."""
    return " ".join(sentences(results))


def sentences(results: Results) -> list[str]:
    """Which arm is best; what the brain is worth beside a closed form, plain evolution and chance; what is missing."""
    comparison = Figures(results)
    found = [best_sentence(comparison)]
    headline = comparison.headline
    if headline is not None:
        found += duels(comparison, headline)
        found += speed_sentences(comparison, headline)
        found += worth_sentences(comparison, headline)
    unranked = [arm for arm in results.arms if arm not in comparison.ranked]
    if unranked and comparison.ranked:
        verb = "was" if len(unranked) == 1 else "were"
        found.append(f"{_list(unranked)} {verb} not measured on every text at every sparsity and so not ranked.")
    if results.missing:
        runs = "1 run is" if len(results.missing) == 1 else f"{len(results.missing)} runs are"
        found.append(f"{runs} missing, and the figures are of the others.")
    return found


def best_sentence(comparison: Figures) -> str:
    """The arm with the lowest perplexity and how sure that is."""
    if not comparison.arms:
        return "No run is finished yet."
    if not comparison.ranked:
        return "No arm was measured on every text at every sparsity, so none can be called the best."
    best, *others = comparison.ranked
    figure = _with_interval(comparison.estimate(best, None, PERPLEXITY), comparison, best)
    if not others:
        return f"{best} has a perplexity of {figure}, {_scope(comparison)}; no other arm can be compared with it."
    second = comparison.estimate(others[0], None, PERPLEXITY)
    follows = f"{others[0]} follows with {number(second.value if second else None, 2)}"
    arms = f"{len(comparison.ranked)} {'' if comparison.ranked == comparison.ordered else 'ranked '}arms"
    found = f"Of {arms} {best} has the lowest perplexity, {figure}, {_scope(comparison)}; {follows}"
    test = over_seeds(comparison, best, others[0], PERPLEXITY)
    if test is None:
        return f"{found}."
    ending = {
        "below": "and the paired test tells the two apart",
        "above": "and the paired test tells the two apart",
        "not distinguished": "which the paired test does not tell from it",
        "too few pairs": "and there are too few pairs of runs to tell the two apart",
    }[test.verdict]
    if test.p is None:
        ending = "and neither varies with the seed"
    return f"{found}, {ending}."


def duels(comparison: Figures, headline: str) -> list[str]:
    """The arm that is spoken of beside the best closed form, plain evolution and the target model alone."""
    if kind_of(headline) == "closed form":
        return ["Only closed forms were compared: nothing in them is left to chance or to a brain."]
    found = []
    if kind_of(headline) != "brain":
        found.append("No arm that asks the brain was measured, so nothing is said of its worth.")
    closed = comparison.best("closed form")
    if closed is None:
        found.append("There is no closed form to compare with.")
    else:
        found.append(duel(comparison, headline, closed, f"the best closed form ({closed})"))
    evolution = comparison.best(base=EVOLUTION)
    if evolution is None and kind_of(headline) == "brain":
        found.append("There is no plain evolution to compare with.")
    elif evolution not in (None, headline):
        called = "plain evolution" if evolution == EVOLUTION else f"plain evolution ({evolution})"
        found.append(duel(comparison, headline, evolution, called))
    alone = comparison.best(base=SELF)
    if alone is not None and alone != headline and kind_of(headline) == "brain":
        found.append(duel(comparison, headline, alone, f"the target model alone ({alone})"))
    return found


def duel(comparison: Figures, arm: str, rival: str, called: str) -> str:
    """Whether `arm` beats `rival` over pairs of runs, by how much, and whether the test can tell."""
    test = over_seeds(comparison, arm, rival, PERPLEXITY)
    if test is None:
        return f"{arm} and {called} have no pair of runs in common."
    where = [percent(one) for one in comparison.sparsities if paired_runs(comparison, arm, rival, one)]
    alone = "" if len(where) == len(comparison.sparsities) else f" at {_list(where)}, where both were measured"
    change = f"its perplexity is {_change(test)}{alone}"
    return {
        "below": f"{arm} beats {called}: {change}, p = {_p(test.p)}.",
        "above": f"{arm} loses to {called}: {change}, p = {_p(test.p)}.",
        "not distinguished": f"{arm} is not told apart from {called}: {change}, p = {_p(test.p)}.",
        "too few pairs": f"Too few seeds to tell {arm} from {called}: {change}, and so few allow no p below "
        f"{_p(test.least_p)}.",
    }[test.verdict]


def speed_sentences(comparison: Figures, headline: str) -> list[str]:
    """At what share of the tokens the arm that is spoken of was as good as its searching rivals ever were."""
    found = []
    for base in (EVOLUTION, SELF):
        rival = comparison.best(base=base)
        if rival is None or rival == headline:
            continue
        by_sparsity = reached(comparison, headline, rival)
        hits = sum(one.needed is not None for one in by_sparsity.values())
        share = mean_share(by_sparsity)
        over = f" (geometric mean over {len(by_sparsity)} sparsities)" if len(by_sparsity) > 1 else ""
        if share is not None:
            found.append(
                f"{headline} had the final fitness of {rival} after {share:.0%} of the tokens that {rival} took{over}."
            )
        elif by_sparsity and not hits:
            found.append(f"{headline} never had the final fitness of {rival}.")
        elif by_sparsity:
            found.append(f"{headline} had the final fitness of {rival} at {hits} of {len(by_sparsity)} sparsities.")
    return found


def worth_sentences(comparison: Figures, headline: str) -> list[str]:
    """What the brain is worth beside chance among the same moves; nothing where no arm asks it."""
    if not any(kind_of(arm) == "brain" for arm in comparison.arms):
        return []
    found = worth(comparison.runs(headline))
    if found is None:
        return [
            f"What the brain is worth beside chance is not known: no run of {headline} compared choices of both "
            "with their parents."
        ]
    return [worth_sentence(found)]


def worth_sentence(found: Worth) -> str:
    """The brain's improving share beside that of chance, and whether the test tells them apart."""
    own, chance = found.shares
    better = f"{percent(round(own, 3))} of the brain's {found.brain.n} candidates beat their parents"
    random = f"{percent(round(chance, 3))} of {found.brain.other_n} random choices among the same legal moves"
    ending = {
        "better": "the brain chose better than chance",
        "worse": "the brain chose worse than chance",
        "not distinguished": "the brain is not shown to choose better or worse than chance",
        "too few": "too few to tell",
    }[found.verdict]
    points = _points(found.pooled)
    if found.within is not None and found.strata > 1:
        points += f"; stratified {_points(found.within)}"
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
        interval = f"{kind} {100 * math.expm1(test.low):+.1f}% to {100 * math.expm1(test.high):+.1f}%, "
    return f"{change_in_words(test.mean)} ({interval}{_counted(test.n, 'pair')} of runs)"


def _points(estimate: Estimate) -> str:
    low, high = 100 * (estimate.low or 0.0), 100 * (estimate.high or 0.0)
    return f"{100 * estimate.value:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}"


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.2g}"


def _with_interval(estimate: Estimate | None, comparison: Figures, arm: str) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value, 2)
    seeds = _counted(comparison.seeds(arm), "seed")
    return f"{number(estimate.value, 2)} (95% interval {estimate.low:,.2f} to {estimate.high:,.2f} over {seeds})"


def _scope(comparison: Figures) -> str:
    at = _list([percent(sparsity) for sparsity in comparison.sparsities])
    texts = comparison.texts
    on = f"on {texts[0]}" if len(texts) == 1 else f"geometric mean over {len(texts)} texts"
    return f"{on} at {at} sparsity"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
