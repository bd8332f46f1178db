"""What the rules of legal calls look at, read from the state and the memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from self_pruner.agent.arms import ARMS
from self_pruner.agent.search.legal_calls import Facts, Place
from self_pruner.agent.search.proposers import learned, local_costs
from self_pruner.agent.search.state import SearchState, cost
from self_pruner.agent.search.step_size import step_size
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate
from self_pruner.tools.benchmark_latency import timed_already
from self_pruner.tools.evaluation.slopes import PASS_COST
from self_pruner.tools.profiles.selection import better_half, rank
from self_pruner.tools.profiles.sensitivity import Costs, Marginal, rank_places
from self_pruner.tools.workbench import Workbench

SHORTLIST = 8  # places shown to the brain to cut, and as many to grow
LEFT_FOR_STEPS = 2  # candidates that must be payable after slopes were measured, for it to pay
ATTEMPTS = 3  # candidates asked for, per offspring wanted, before the tool's random operator fills up


def facts(bench: Workbench, settings: Settings, state: SearchState) -> Facts:
    """The facts of the next turn, whose step is one more than the state's."""
    missing = missing_offspring(bench, settings, state)
    pending, fidelity = pending_candidates(bench, settings, state)
    ranked = eligible(bench, [*state["population"], *state["offspring"]])
    step = step_size(bench, settings, state)
    cut, grow = shortlist(bench, settings, state, step) if missing and state["generation"] else ([], [])
    due = slopes_due(bench, settings, state) if missing and not state["offspring"] else ""
    return Facts(
        centre=due,
        space=bench.budget.space,
        generation=state["generation"],
        population=tuple(state["population"]),
        missing=missing,
        pending=tuple(pending),
        fidelity=bench.fidelity[-1] if due else fidelity,
        ranked=tuple(ranked),
        survivors=settings.population,
        timeable=tuple(timeable(bench, settings, state, ranked)),
        cut=tuple(cut),
        grow=tuple(grow),
        step=step,
        samples=settings.samples,
    )


def missing_offspring(bench: Workbench, settings: Settings, state: SearchState) -> int:
    """Candidates that this generation still has to make: none once the tool has filled it up."""
    if state["filled"]:
        return 0
    wanted = settings.offspring
    if state["generation"] == 0:
        wanted = len(founders(bench)) + (settings.initial if ARMS[settings.arm].initial else 0)
    wanted = min(wanted, settings.evaluations - state["evaluations"])
    missing = max(0, wanted - len(state["offspring"]))
    return min(missing, max(1, left(settings, state) // bench.fidelity[0])) if missing else 0


def slopes_due(bench: Workbench, settings: Settings, state: SearchState) -> str:
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
    needed = PASS_COST * bench.slope_tokens + LEFT_FOR_STEPS * bench.fidelity[-1]
    return state["best"] if left(settings, state) >= needed else ""


def left(settings: Settings, state: SearchState) -> int:
    """Tokens that the run may still spend."""
    return 2**62 if settings.tokens is None else max(0, settings.tokens - cost(state))


def attempts_used_up(settings: Settings, state: SearchState) -> bool:
    """Whether the brain has asked for so many candidates that the tool fills up the generation."""
    wanted = settings.initial if state["generation"] == 0 else settings.offspring
    return state["attempts"] >= ATTEMPTS * wanted


def founders(bench: Workbench) -> list[Candidate]:
    """The candidates that a run starts with: closed forms and remembered profiles."""
    return bench.memory.recall(Candidate, run=bench.run, step=0)


def pending_candidates(bench: Workbench, settings: Settings, state: SearchState) -> tuple[list[str], int]:
    """Offspring to measure next and on how many tokens: all on the fewest, then the promising half, stage by stage.

    The closed forms are measured at every stage, so that every result stands beside them. Where tokens run short the
    first of those that wait are measured, as many as can be paid for.
    """
    names = state["offspring"]
    before = 0
    always = {row.id for row in founders(bench) if row.proposed_by == "seed"}
    for tokens in bench.fidelity:
        profiles = {name: bench.candidate(name).profile for name in names}
        waiting = [
            name
            for name, profile in profiles.items()
            if bench.fitness(profile, tokens) is None and bench.failure(profile) is None
        ]
        waiting.sort(key=lambda name: name not in always)  # the closed forms first: they are measured in any case
        affordable = max(len(always.intersection(waiting)), left(settings, state) // (tokens - before))
        if waiting[:affordable]:
            return waiting[:affordable], tokens
        before = tokens
        scores = {name: bench.fitness(profile, tokens) for name, profile in profiles.items()}
        ranked = rank({name: found.kl for name, found in scores.items() if found and found.kl is not None})
        half = set(better_half(ranked)) - hopeless(bench, settings, state, profiles, tokens)
        names = [name for name in ranked if name in half or name in always]
    return [], bench.fidelity[-1]


def hopeless(
    bench: Workbench, settings: Settings, state: SearchState, profiles: Mapping[str, Profile], tokens: int
) -> set[str]:
    """Offspring that after `tokens` tokens lie clearly behind the last survivor: no more are spent on them.

    Racing (Maron and Moore, 1994) with paired differences: sequence by sequence against the last survivor, by more than
    one standard error. That is pooled over the generation, since a few sequences say little about a single candidate's.
    """
    if not state["population"]:
        return set()
    sequences = range(tokens // bench.sequence_length)
    last = bench.scores(bench.candidate(state["population"][-1]).profile)
    behind: dict[str, list[float]] = {}
    for name, profile in profiles.items():
        own = bench.scores(profile)
        pairs = [(own[index].kl, last[index].kl) for index in sequences if index in own and index in last]
        behind[name] = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    spreads = [variance(values) for values in behind.values() if len(values) > 1]
    if not spreads:
        return set()
    error = math.sqrt(fmean(spreads) / len(sequences))
    return {name for name, values in behind.items() if values and fmean(values) > error}


def eligible(bench: Workbench, names: Sequence[str]) -> list[str]:
    """Those measured at the last fidelity, best first."""
    scores = {name: bench.fitness(bench.candidate(name).profile, bench.fidelity[-1]) for name in names}
    return rank({name: found.kl for name, found in scores.items() if found and found.kl is not None})


def timeable(bench: Workbench, settings: Settings, state: SearchState, ranked: Sequence[str]) -> list[str]:
    """The best candidates not timed yet, while the run may still time any."""
    if state["benchmarked"] >= settings.benchmarks:
        return []
    timed = timed_already(bench)
    return [name for name in ranked[:2] if bench.candidate(name).profile not in timed]


def shortlist(bench: Workbench, settings: Settings, state: SearchState, step: int) -> tuple[list[Place], list[Place]]:
    """Places worth cutting and worth growing by the measured costs, where every parent has room, in random order.

    Twice as many as are shown are drawn from: the costs are a guess, and always the same places would be a dead end.
    The order is random because small brains prefer what is read first.
    """
    if not bench.costs.mlp:  # nothing was probed, so nothing is shown
        return [], []
    rng = bench.rng("shortlist", state["step"])
    parents = [bench.candidate(name).profile for name in state["population"]]
    cheap, dear = rank_places(bench.budget, believed(bench, settings, state), parents[0], step)
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


def believed(bench: Workbench, settings: Settings, state: SearchState) -> Costs:
    """The costs of all places: as probed, and where the arm learns from measurements, as corrected by them."""
    if not ARMS[settings.arm].learns:
        return bench.costs
    local = local_costs(bench, state["centre"])
    if local is not None:
        return local.expected
    return learned(bench, bench.memory.recall(Candidate, run=bench.run)).expected()


def marginals(
    bench: Workbench, settings: Settings, state: SearchState, parent: str, step: int
) -> dict[tuple[int, str, bool], Marginal]:
    """The cost of each place at a parent's widths, by (layer, part, whether it grows)."""
    cheap, dear = rank_places(bench.budget, believed(bench, settings, state), bench.candidate(parent).profile, step)
    return {
        (marginal.layer, marginal.part, grows): marginal
        for ranked, grows in ((cheap, False), (dear, True))
        for marginal in ranked
    }
