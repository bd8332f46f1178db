"""What every place is believed to cost after all that this run has measured."""

from __future__ import annotations

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles.quadratic_model import QuadraticModel, learned_curvature
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.profiles.surrogate import Surrogate, fit

NEAR = 1.15  # times the best fitness; profiles further off say little about the neighbourhood of the best


def believed(history: SearchHistory, settings: Settings, state: SearchState) -> Costs:
    """The costs of all places: as probed, and where the arm learns from measurements, as corrected by them."""
    if not ARMS[settings.arm].learns:
        return history.bench.costs
    local = quadratic_model(history, state["centre"])
    return surrogate(history).expected() if local is None else local.expected


def surrogate(history: SearchHistory) -> Surrogate:
    """The surrogate fitted to what is measured at the first fidelity and near the best."""
    first = history.bench.fidelity[0]
    fitness = {row.profile: history.fitness(row.profile, first) for row in history.candidates.values()}
    known = {profile: found.kl for profile, found in fitness.items() if found and found.kl is not None}
    near = {profile: kl for profile, kl in known.items() if kl <= NEAR * min(known.values())}
    return fit(history.bench.costs, list(near), list(near.values()))


def quadratic_model(history: SearchHistory, centre: str) -> QuadraticModel | None:
    """The quadratic model around the candidate `centre`, or None where there are no slopes of it.

    Its curvature is learned from the steps of this run, each of which starts from a candidate with slopes.
    """
    start: Profile | None = history.profile(centre) if centre else None
    if start is None or not history.slopes(start):
        return None
    steps: list[tuple[float, float, float]] = []
    for row in history.steps():
        begun = history.profile(row.parents[0])
        change, terms = history.change(row.profile, begun), history.terms(begun, row.profile)
        if change is not None and terms is not None:
            steps.append((*terms, change))
    return QuadraticModel(history.bench.costs, start, history.slopes(start), learned_curvature(steps))
