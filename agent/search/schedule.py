"""What is due: how many offspring, who is measured next and on how much, who is given up, when the search ends.

Successive halving: all offspring of a generation are measured on the fewest tokens, the better half on more, stage by
stage. Racing gives up earlier on those that lie clearly behind.
"""

from __future__ import annotations

import math
from statistics import fmean, variance

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.state import SearchState, cost
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.records import Candidate
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.profiles.selection import better_half, rank

LEFT_FOR_STEPS = 2  # candidates that must be payable after slopes were measured, for it to pay
ATTEMPTS = 3  # candidates asked for, per offspring wanted, before random ones fill up the generation
GROW, SHRINK = 1.5, 1.5**-0.25  # of the step: at a success rate of one fifth these two cancel out
LARGEST = 3  # times the first step


def missing_offspring(history: SearchHistory, settings: Settings, state: SearchState) -> int:
    """Candidates that this generation still has to make: none once random ones have filled it up."""
    if state["filled"]:
        return 0
    wanted = settings.offspring
    if state["generation"] == 0:
        wanted = len(starting_candidates(history)) + (settings.initial if ARMS[settings.arm].initial else 0)
    wanted = min(wanted, settings.evaluations - state["evaluations"])
    missing = max(0, wanted - len(state["offspring"]))
    return min(missing, max(1, left(settings, state) // history.bench.fidelity[0])) if missing else 0


def starting_candidates(history: SearchHistory) -> list[Candidate]:
    """The candidates that a run starts with: closed forms and remembered profiles."""
    return [row for row in history.candidates.values() if row.step == 0]


def attempts_used_up(settings: Settings, state: SearchState) -> bool:
    """Whether the brain has asked for so many candidates that random ones fill up the generation."""
    wanted = settings.initial if state["generation"] == 0 else settings.offspring
    return state["attempts"] >= ATTEMPTS * wanted


def left(settings: Settings, state: SearchState) -> int:
    """Tokens that the run may still spend."""
    return 2**62 if settings.tokens is None else max(0, settings.tokens - cost(state))


def step_size(history: SearchHistory, settings: Settings) -> int:
    """The largest change of one edit now, in MLP units of a 48-unit layer.

    It grows after a generation in which more than a fifth of the offspring survived, and shrinks after one in which
    fewer did (Rechenberg's 1/5 rule).
    """
    first = settings.mutation_step
    step = float(first)
    for generation in history.yields():
        made = sum(record.made for record in generation.values())
        if made:
            success = sum(record.survived for record in generation.values()) / made
            step = min(max(step * (GROW if success > 0.2 else SHRINK), 1.0), LARGEST * first)
    return round(step)


def slopes_due(history: SearchHistory, settings: Settings, state: SearchState) -> str:
    """The candidate whose slopes are to be measured now, or an empty text.

    An arm that learns does so at its first offspring and every few generations, where the best is another one by then
    and tokens are left to make use of what is learnt.
    """
    if not settings.slopes or not ARMS[settings.arm].learns or not state["generation"]:
        return ""
    if state["centre"] and (
        state["centre"] == state["best"] or state["generation"] - state["centred_at"] < settings.slopes
    ):
        return ""
    needed = PASS_COST * history.bench.slope_tokens + LEFT_FOR_STEPS * history.bench.fidelity[-1]
    return state["best"] if left(settings, state) >= needed else ""


def pending_candidates(history: SearchHistory, settings: Settings, state: SearchState) -> tuple[list[str], int]:
    """Offspring to measure next and on how many tokens: all on the fewest, then the promising half, stage by stage.

    The closed forms are measured at every stage, so that every result stands beside them. Where tokens run short the
    first of those that wait are measured, as many as can be paid for.
    """
    names = state["offspring"]
    before = 0
    always = {row.id for row in starting_candidates(history) if row.proposed_by == "seed"}
    for tokens in history.bench.fidelity:
        scores = {name: history.fitness(history.profile(name), tokens) for name in names}
        waiting = [
            name for name, found in scores.items() if found is None and history.failure(history.profile(name)) is None
        ]
        waiting.sort(key=lambda name: name not in always)  # the closed forms first: they are measured in any case
        affordable = max(len(always.intersection(waiting)), left(settings, state) // (tokens - before))
        if waiting[:affordable]:
            return waiting[:affordable], tokens
        before = tokens
        ranked = rank({name: found.kl for name, found in scores.items() if found and found.kl is not None})
        half = set(better_half(ranked)) - hopeless(history, state, names, tokens)
        names = [name for name in ranked if name in half or name in always]
    return [], history.bench.fidelity[-1]


def hopeless(history: SearchHistory, state: SearchState, names: list[str], tokens: int) -> set[str]:
    """Offspring that after `tokens` tokens lie clearly behind the last survivor: no more are spent on them.

    Racing (Maron and Moore, 1994) with paired differences: sequence by sequence against the last survivor, by more than
    one standard error. That is pooled over the generation, since a few sequences say little about a single candidate's.
    """
    if not state["population"]:
        return set()
    sequences = range(tokens // history.bench.sequence_length)
    last = history.scores(history.profile(state["population"][-1]))
    behind: dict[str, list[float]] = {}
    for name in names:
        own = history.scores(history.profile(name))
        pairs = [(own[index].kl, last[index].kl) for index in sequences if index in own and index in last]
        behind[name] = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    spreads = [variance(values) for values in behind.values() if len(values) > 1]
    if not spreads:
        return set()
    error = math.sqrt(fmean(spreads) / len(sequences))
    return {name for name, values in behind.items() if values and fmean(values) > error}


def timeable(history: SearchHistory, settings: Settings, state: SearchState, ranked: list[str]) -> list[str]:
    """The best candidates not timed yet, while the run may still time any."""
    if state["benchmarked"] >= settings.benchmarks:
        return []
    return [name for name in ranked[:2] if history.profile(name) not in history.latencies]


def stop_reason(settings: Settings, state: SearchState) -> str:
    """Why the run ends now, or an empty text. Evaluations and patience wait for the end of a generation."""
    minutes = state["seconds"] / 60
    if state["best"]:  # there is something to show for it
        if settings.minutes is not None and minutes >= settings.minutes:
            return f"{settings.minutes:g} minutes are used up"
        if settings.tokens is not None and cost(state) + settings.fidelity[-1] > settings.tokens:
            return f"of {settings.tokens} tokens too few are left to measure a candidate in full"
        if not state["offspring"]:
            if not ARMS[settings.arm].searches:
                every = settings.target == "uniform"
                return "every profile of one width is measured" if every else "a closed form has nothing to search"
            if state["evaluations"] >= settings.evaluations:
                return f"{settings.evaluations} evaluations are used up"
            if state["stale"] >= settings.patience:
                return f"{settings.patience} generations brought nothing better"
    return ""
