"""What every place is believed to cost after all that this run has measured, and where to look therefore.

The brain is shown a shortlist of places to cut and to grow, with what they cost at a parent.
"""

from __future__ import annotations

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.legal_calls import Place
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles.quadratic_model import QuadraticModel, learned_curvature
from self_pruner.tools.profiles.sensitivity import Costs, Marginal, rank_places
from self_pruner.tools.profiles.shifts import Stretch, stretches
from self_pruner.tools.profiles.surrogate import Surrogate, fit

SHORTLIST = 8  # places shown to the brain to cut, and as many to grow
RUNS = 6  # of layers, of which shifts are made: a dozen stretches are as much as can be kept in mind
NEAR = 1.15  # times the best fitness; profiles further off say little about the neighbourhood of the best


def believed(history: SearchHistory, settings: Settings, state: SearchState) -> Costs:
    """The costs of all places: as probed, and where the arm learns from measurements, as corrected by them."""
    if not ARMS[settings.arm].learns:
        return history.bench.costs
    local = quadratic_model(history, state.centre)
    return surrogate(history).expected() if local is None else local.expected


def surrogate(history: SearchHistory) -> Surrogate:
    """The surrogate fitted to what is measured at the first fidelity and near the best."""
    first = history.bench.fidelity[0]
    fitness = {row.profile: history.fitness(row.profile, first) for row in history.candidates.values()}
    known = {profile: found.kl for profile, found in fitness.items() if found and found.kl is not None}
    near = {profile: kl for profile, kl in known.items() if kl <= NEAR * min(known.values())}
    return fit(history.bench.costs, list(near), list(near.values()))


def quadratic_model(history: SearchHistory, centre: str) -> QuadraticModel | None:
    """The quadratic model around the candidate `centre`, or None where its first-order sensitivities are not measured.

    Its curvature is learned from the steps of this run, each of which starts from a candidate with sensitivities.
    """
    start: Profile | None = history.profile(centre) if centre else None
    if start is None or not history.sensitivities(start):
        return None
    steps: list[tuple[float, float, float]] = []
    for row in history.steps():
        begun = history.profile(row.parents[0])
        change, terms = history.change(row.profile, begun), history.terms(begun, row.profile)
        if change is not None and terms is not None:
            steps.append((*terms, change))
    return QuadraticModel(history.bench.costs, start, history.sensitivities(start), learned_curvature(steps))


def shortlist(
    history: SearchHistory, settings: Settings, state: SearchState, step: int
) -> tuple[list[Place], list[Place]]:
    """Places worth cutting and worth growing by the believed costs, where every parent has room, in random order.

    Twice as many as are shown are drawn from: the costs are a guess, and always the same places would be a dead end.
    The order is random because small brains prefer what is read first.
    """
    bench = history.bench
    if not bench.costs.mlp:  # nothing was probed, so nothing is shown
        return [], []
    rng = bench.rng("shortlist", state.step)
    parents = [history.profile(name) for name in state.population]
    cheap, dear = rank_places(bench.budget, believed(history, settings, state), parents[0], step)
    chosen: list[list[Place]] = []
    taken: set[tuple[int, str]] = set()
    for marginals, grows in ((cheap, False), (dear, True)):
        places = []
        for marginal in marginals:
            widths = [parent.widths(marginal.part)[marginal.layer] for parent in parents]
            dense = bench.budget.space.units(marginal.part)
            room = dense - max(widths) if grows else min(widths) - 1
            if room > 0 and (marginal.layer, marginal.part) not in taken:
                places.append(Place(marginal.layer, marginal.part, room))
        drawn = rng.sample(places[: 2 * SHORTLIST], min(SHORTLIST, len(places)))
        taken.update((place.layer, place.part) for place in drawn)
        chosen.append(drawn)
    return chosen[0], chosen[1]


def marginals(
    history: SearchHistory, settings: Settings, state: SearchState, parent: str, step: int
) -> dict[tuple[int, str, bool], Marginal]:
    """The cost of each place at a parent's widths, by (layer, part, whether it grows)."""
    costs = believed(history, settings, state)
    cheap, dear = rank_places(history.bench.budget, costs, history.profile(parent), step)
    return {
        (marginal.layer, marginal.part, grows): marginal
        for ranked, grows in ((cheap, False), (dear, True))
        for marginal in ranked
    }


def movable(history: SearchHistory, state: SearchState) -> tuple[list[Stretch], list[Stretch]]:
    """Stretches that every parent can cut, and those that every parent can grow, in the same random order."""
    bench = history.bench
    space, rng = bench.budget.space, bench.rng("stretches", state.step)
    every = stretches(space.n_layers, RUNS)
    rooms = {one: [one.room(space, history.profile(name)) for name in state.population] for one in every}
    shown = rng.sample(every, len(every))
    return [one for one in shown if all(room[0] for room in rooms[one])], [
        one for one in shown if all(room[1] for room in rooms[one])
    ]
