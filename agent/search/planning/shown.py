"""What a brain that plans is shown: stretches and their worth, the next step of the operator `model`, lessons."""

from __future__ import annotations

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.learned_costs import RUNS, believed, quadratic_model
from self_pruner.agent.search.legal_calls import Situation
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.settings import Settings
from self_pruner.prompts.variables import LessonRow, StepRow, StretchRow
from self_pruner.tools.profiles.shifts import Stretch, stretches, worth

OWN_LESSONS, CURVE = 6, 6  # entries of the history
STEP_MOVES = 4  # of the stretches that a step changes most


def stretch_rows(
    history: SearchHistory, settings: Settings, state: SearchState, here: Situation
) -> tuple[StretchRow, ...]:
    """What shifts are between, at the best parent."""
    bench, parent = history.bench, history.profile(here.population[0])
    costs = believed(history, settings, state)
    rows, partners = [], here.partners()
    gives = {name for name, others in partners.items() if others}
    takes = {other for others in partners.values() for other in others}
    for name in dict.fromkeys((*here.take, *here.give)):
        one = Stretch.of(name, bench.budget.space.n_layers)
        kept = one.kept(parent) / (bench.budget.space.units(one.part) * len(one.layers))
        rows.append(StretchRow(name, kept, *worth(bench.budget, costs, parent, one), name in gives, name in takes))
    return tuple(rows)


def next_step(history: SearchHistory, state: SearchState) -> StepRow | None:
    """The next step of the quadratic model, where there is one that moves anything between stretches."""
    model, budget = quadratic_model(history, state.centre), history.bench.budget
    if model is None:
        return None
    step = model.step(budget)
    moved = [(one, one.kept(step) - one.kept(model.centre)) for one in stretches(budget.space.n_layers, RUNS)]
    by_weight = sorted(moved, key=lambda pair: -abs(pair[1]) * budget.unit_price(pair[0].part))
    moves = tuple(f"{one} {change:+d}" for one, change in by_weight[:STEP_MOVES] if change)
    return StepRow(moves, model.predict(step)) if moves else None


def lessons_shown(history: SearchHistory) -> list[LessonRow]:
    """The run's own, newest first, then those that it began with, the nearest first."""
    bench = history.bench
    space = bench.budget.space
    whole, fixed = space.prunable_params(space.dense()), space.fixed_params
    own = [row for row in history.lessons if row.run == bench.run]
    others = [row for row in history.lessons if row.run != bench.run]
    return [
        LessonRow(
            row.amount,
            row.take,
            row.give,
            row.expected,
            row.verdict,
            row.change,
            1.0 - (row.params - fixed) / whole,
            row.run != bench.run,
            row.model,
        )
        for row in (*own[: -OWN_LESSONS - 1 : -1], *others)
    ]


def curve(history: SearchHistory) -> list[float]:
    """Fitness of the best after each of the last generations, newest first."""
    last = history.bench.fidelity[-1]
    found = [history.fitness(history.profile(one.best), last) for one in history.generations[: -CURVE - 1 : -1]]
    return [fitness.kl for fitness in found if fitness and fitness.kl is not None]
