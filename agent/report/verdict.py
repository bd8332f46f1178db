"""What a run came to, in two sentences, computed from its figures: what was found, and whether it is worth anything."""

from __future__ import annotations

from self_pruner.agent.result.outcome import FOUND, RECALIBRATED, Outcome

SURE = {  # by whether a difference is clear; None where there is a single sequence
    True: "more than two standard errors",
    False: "less than two standard errors, so perhaps by chance",
    None: "on a single sequence, so perhaps by chance",
}


def verdict(outcome: Outcome) -> str:
    """What is removed and what that does, then what of it is the search's (if any) and the recalibration's."""
    dense, uniform, result = (outcome.row(name) for name in ("dense", "uniform", outcome.result))
    best = outcome.row(outcome.best_baseline)
    removed = f"{outcome.sparsity:.1%} of the decoder is removed"
    if None in (dense.perplexity, result.perplexity, best.perplexity):
        return f"{removed}. What was found or the baselines could not be measured on the reporting text."
    beside = f"{best.perplexity:.2f} of the best baseline ({best.name})"
    if best.name != uniform.name and uniform.perplexity is not None:
        beside += f" and {uniform.perplexity:.2f} of uniform"
    rises = f"perplexity goes from {dense.perplexity:.2f} to {result.perplexity:.2f}, beside {beside}."
    return f"{removed}: {rises} {_shares(outcome)}"


def _shares(outcome: Outcome) -> str:
    best = outcome.row(outcome.best_baseline)
    found, result = outcome.row(FOUND), outcome.row(outcome.result)
    paired = next((one for one in outcome.differences if one.against == best.name), None)
    who = "The search alone" if outcome.searched else "What was taken without a search"
    said = f"{who} could not be measured beside {best.name}"
    if paired is not None and not paired.mean:
        said = f"The search found nothing better than {best.name}" if outcome.searched else f"{who} equals {best.name}"
    elif paired is not None and found.kl is not None and best.kl:
        said = f"{who} is {_beside(found.kl, best.kl)} than {best.name} in KL ({SURE[paired.clear]})"
    if outcome.result == RECALIBRATED and result.kl is not None and best.kl:
        return f"{said}; recalibrated, which no baseline is, it is {_beside(result.kl, best.kl)}."
    if outcome.recalibration is None:
        return f"{said}."
    if (failure := outcome.recalibration.failure) is None:
        return f"{said}; recalibration did not help."
    return f"{said}; it {'was not' if outcome.recalibration.given_up else 'could not be'} recalibrated ({failure})."


def _beside(own: float, other: float) -> str:
    return f"{abs(100 * (own / other - 1)):.1f}% {'better' if own < other else 'worse'}"
