"""Where to look: the places that the brain is shown to cut and to grow, and what they cost at a parent."""

from __future__ import annotations

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.learned_costs import believed
from self_pruner.agent.search.legal_calls import Place
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.profiles.sensitivity import Marginal, rank_places

SHORTLIST = 8  # places shown to the brain to cut, and as many to grow


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
    rng = bench.rng("shortlist", state["step"])
    parents = [history.profile(name) for name in state["population"]]
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
