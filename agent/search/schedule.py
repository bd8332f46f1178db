"""How the search stands: how many offspring are due, who is measured next and on how much.

Successive halving: all offspring of a generation are measured on the fewest tokens, the better half on more, stage by
stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from self_pruner.agent.search.history import SearchHistory, best_of
from self_pruner.agent.search.initial_population import CLOSED_FORM, best_of_each, closed_form_of
from self_pruner.agent.search.learned_costs import movable, shortlist
from self_pruner.agent.search.legal_calls import Situation
from self_pruner.agent.search.planning.plan import STEPS, current_plan
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.limits import cost
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.records import Candidate
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.profiles.selection import better_half, rank

LEFT_FOR_STEPS = 2  # candidates that must be payable after sensitivities were measured, for it to pay
ATTEMPTS = 3  # candidates asked for, per offspring wanted, before random ones fill up the generation
GROW, SHRINK = 1.5, 1.5**-0.25  # of the step: at a success rate of one fifth these two cancel out
LARGEST = 3  # times the first step


def situation(history: SearchHistory, settings: Settings, state: SearchState) -> Situation:
    """How the search stands before the next turn, whose step is one more than the state's."""
    missing = missing_offspring(history, settings, state)
    pending, fidelity = pending_candidates(history, settings, state)
    ranked = history.ranked([*state.population, *state.offspring])
    step = max(1, round(step_size(history, settings) * STEPS[current_plan(state).step]))
    cut, grow = shortlist(history, settings, state, step) if missing and state.generation else ([], [])
    take, give = movable(history, state) if missing and state.generation else ([], [])
    centre = sensitivities_due(history, settings, state) if missing and not state.offspring else ""
    return Situation(
        space=history.bench.budget.space,
        generation=state.generation,
        population=tuple(state.population),
        missing=missing,
        pending=tuple(pending),
        fidelity=history.bench.fidelity[-1] if centre else fidelity,
        ranked=tuple(ranked),
        survivors=settings.population,
        timeable=tuple(timeable(history, settings, state, ranked)),
        cut=tuple(cut),
        grow=tuple(grow),
        step=step,
        samples=settings.samples,
        take=tuple(map(str, take)),
        give=tuple(map(str, give)),
        harmful=history.harmful(),
        centre=centre,
    )


def missing_offspring(history: SearchHistory, settings: Settings, state: SearchState) -> int:
    """Candidates that this generation still has to make: none once random ones have filled it up."""
    if state.filled:
        return 0
    wanted = settings.offspring
    if state.generation == 0:
        wanted = len(starting_candidates(history)) + (settings.initial if ARMS[settings.arm].initial else 0)
    wanted = min(wanted, settings.evaluations - state.evaluations)
    affordable = max(1, int(left(settings, state) / mean_cost(history.bench.fidelity)))
    return max(0, min(wanted, affordable) - len(state.offspring))


def mean_cost(fidelity: Sequence[int]) -> float:
    """Tokens that an offspring takes on average, with half of them in every stage going on to the next.

    A last generation of so many is measured to its end. A larger one would be measured in part, which is of no use.
    """
    return sum((now - then) / 2**stage for stage, (now, then) in enumerate(zip(fidelity, (0, *fidelity), strict=False)))


def starting_candidates(history: SearchHistory) -> list[Candidate]:
    """The candidates that a run starts with: closed forms and remembered profiles."""
    return [row for row in history.candidates.values() if row.step == 0]


def attempts_used_up(settings: Settings, state: SearchState) -> bool:
    """Whether the brain has asked for so many candidates that random ones fill up the generation."""
    wanted = settings.initial if state.generation == 0 else settings.offspring
    return state.attempts >= ATTEMPTS * wanted


def left(settings: Settings, state: SearchState) -> int:
    """Tokens that the run may still spend."""
    return 2**62 if settings.tokens is None else max(0, settings.tokens - cost(state.spent))


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


def sensitivities_due(history: SearchHistory, settings: Settings, state: SearchState) -> str:
    """The candidate whose first-order sensitivities are to be measured now, or an empty text.

    An arm that learns does so at its first offspring and every few generations, where the best is another one by then
    and tokens are left to make use of what is learnt. The first centre is the best of the additive forms, the best or
    not: the probes' costs err there, so a step from there gains ten times what one from a rule of thumb does.
    """
    if not settings.sensitivities or not ARMS[settings.arm].learns or not state.generation:
        return ""
    centre = best_of(history.generations)
    if not state.centre:
        centre = next(iter(history.ranked(additive_forms(history))), centre)
    elif not current_plan(state).measure:
        return ""
    if state.centre and (state.centre == centre or state.generation - state.centred_at < settings.sensitivities):
        return ""
    needed = PASS_COST * history.bench.sensitivity_tokens + LEFT_FOR_STEPS * history.bench.fidelity[-1]
    return centre if left(settings, state) >= needed else ""


def additive_forms(history: SearchHistory) -> list[str]:
    """The closed forms that are optimal by the costs of the probes."""
    return [row.id for row in starting_candidates(history) if closed_form_of(row) == CLOSED_FORM]


def pending_candidates(history: SearchHistory, settings: Settings, state: SearchState) -> tuple[list[str], int]:
    """Offspring to measure next and on how many tokens: all on the fewest, then the promising half, stage by stage.

    All closed forms are measured at the first stage, and the best of each at every other, so that every result stands
    beside them. Where tokens run short the first of those that wait are measured, as many as can be paid for.
    """
    names = state.offspring
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
        half = set(better_half(ranked))
        always = {row.id for row in best_of_each(history.candidates[name] for name in ranked)}
        names = [name for name in ranked if name in half or name in always]
    return [], history.bench.fidelity[-1]


def timeable(history: SearchHistory, settings: Settings, state: SearchState, ranked: list[str]) -> list[str]:
    """The best candidates not timed yet, while the run may still time any."""
    if state.benchmarked >= settings.benchmarks:
        return []
    return [name for name in ranked[:2] if history.profile(name) not in history.latencies]
