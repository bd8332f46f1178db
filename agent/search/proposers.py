"""The tool's own operators as makers of calls: what an arm does where it does not ask the brain.

They make the same `prune_model` calls that a brain makes, with a `by` that says who made it, so everything that follows
is the same for all. Whatever is random depends on the run's seed, the step and the number of the call alone.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from self_pruner.agent.arms import ARMS, Arm, Maker
from self_pruner.agent.brain.schema import sample_call
from self_pruner.agent.search.legal_calls import Facts, LegalTurn
from self_pruner.agent.search.operator_quotas import Record, quotas
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.profiles import cma_search, proposals
from self_pruner.tools.profiles.operators import crossover_mask, random_profile
from self_pruner.tools.profiles.quadratic_model import LocalCosts, learned_curvature
from self_pruner.tools.profiles.surrogate import Surrogate, fit
from self_pruner.tools.prune_model import PruneArguments, propose
from self_pruner.tools.workbench import Workbench

Call = dict[str, Any]
ATTEMPTS = 32  # proposals tried for one that is new to the run
NEAR = 1.15  # times the best fitness; profiles further off say little about the neighbourhood of the best
SCREENED = ("switch", "cross")  # makers whose proposals are chosen among by what is predicted of them
ENOUGH = 8  # profiles measured before the surrogate screens anything


@dataclass(frozen=True)
class Operators:
    """Makes the calls of one turn."""

    bench: Workbench
    settings: Settings
    arm: Arm

    # --- who is next --------------------------------------------------------------------------------------------

    def open(self, state: SearchState, missing: int) -> list[tuple[Maker, int]]:
        """Who makes the `missing` offspring of this generation, and how many each."""
        if missing < 1:
            return []
        rows = self.bench.memory.recall(Candidate, run=self.bench.run, generation=state["generation"])
        made = Counter(row.proposed_by for row in rows if row.step > 0)
        wanted = missing + sum(made.values())
        if state["generation"] == 0:
            makers = self.arm.initial or ("switch",)
            shares = quotas([], makers, wanted)
        else:
            makers = self.arm.vary
            shares = quotas(history(self.bench, state["generation"]), makers, wanted)
        left: list[tuple[Maker, int]] = []
        for maker in makers:
            count = min(shares[maker] - made[maker], missing)
            if count > 0:
                left.append((maker, count))
                missing -= count
        if missing and not left:  # whoever was to make them could not: the plainest operator fills up
            left.append(("random" if self.arm.name == "random" else "switch", missing))
        return left

    def calls(self, state: SearchState, facts: Facts, turn: LegalTurn) -> list[Call]:
        """The calls of all makers but the brain that are still to make offspring; [] where only the brain is."""
        due = [(maker, count) for maker, count in self.open(state, facts.missing) if maker != "brain"]
        if not due:
            return []
        rows = self.bench.memory.recall(Candidate, run=self.bench.run)
        local = local_costs(self.bench, state["centre"]) if self.arm.learns else None
        surrogate = learned(self.bench, rows) if self.arm.learns and local is None else None
        taken = {row.profile for row in rows}

        def made(maker: Maker, count: int) -> list[Call]:
            if maker == "cma":
                return self._cma(count, state, taken)
            source = self._source(maker, state, facts, turn, surrogate, local)
            return self._made(maker, count, state, source, self._screen(maker, surrogate, local), taken)

        calls = [call for maker, count in due for call in made(maker, count)]
        # where nobody finds anything new, the plainest operator fills up
        return calls or made("switch", sum(count for _, count in due))

    # --- making -------------------------------------------------------------------------------------------------

    def _made(
        self,
        maker: Maker,
        count: int,
        state: SearchState,
        source: Callable[[random.Random], dict[str, Any]],
        screen: Callable[[Profile], float] | None,
        taken: set[Profile],
    ) -> list[Call]:
        """Up to `count` calls of one maker for profiles that are not in `taken`, which grows.

        With a `screen`, which predicts fitness, each is the best of several proposals.
        """
        screened = self.settings.screen if screen else 1
        calls: list[Call] = []
        for number in range(count):
            rng = self.bench.rng("operator", maker, state["step"] + 1, number)
            offers: list[tuple[Profile, dict[str, Any]]] = []
            for _ in range(ATTEMPTS):
                call = source(rng)
                profile = self.outcome(call)
                if profile not in taken and all(profile != other for other, _ in offers):
                    offers.append((profile, call))
                    if len(offers) == screened:
                        break
            if offers:
                if screen:
                    offers.sort(key=lambda offer: screen(offer[0]))
                profile, call = offers[0]
                taken.add(profile)
                calls.append({"name": "prune_model", "arguments": {**call, "by": maker}})
        return calls

    def _screen(
        self, maker: Maker, surrogate: Surrogate | None, local: LocalCosts | None
    ) -> Callable[[Profile], float] | None:
        """What predicts the fitness of a maker's proposals, where its proposals are chosen among."""
        if local is not None and maker in SCREENED:
            return local.predict
        if surrogate is not None and surrogate.measured >= ENOUGH and maker in (*SCREENED, "model"):
            return surrogate.predict
        return None

    def outcome(self, call: dict[str, Any]) -> Profile:
        """The profile that a call would make."""
        proposal = propose(self.bench, PruneArguments(**call))
        return self.bench.budget.project(proposal.attention, proposal.mlp, proposal.hold).profile

    def _source(
        self,
        maker: Maker,
        state: SearchState,
        facts: Facts,
        turn: LegalTurn,
        surrogate: Surrogate | None,
        local: LocalCosts | None,
    ) -> Callable[[random.Random], dict[str, Any]]:
        """Makes one proposal of `maker` after another, as the arguments of a call."""
        parents = facts.population or tuple(state["offspring"])  # the first population varies the founders
        profiles = {name: self.bench.candidate(name).profile for name in parents}
        budget = self.bench.budget
        steps = itertools.count()

        def best_founder() -> str:
            known = [(self.bench.costs.total(profiles[name]), name) for name in parents]
            return min(known)[1] if self.bench.probes else parents[-1]

        def parent(rng: random.Random) -> str:
            return proposals.choose_parent(parents, rng) if facts.population else best_founder()

        def switch(rng: random.Random) -> dict[str, Any]:
            name = parent(rng)
            switched = proposals.switch(budget, profiles[name], rng, facts.step, self.settings.later_layers)
            return vectors("mutation", [name], switched)

        def cross(rng: random.Random) -> dict[str, Any]:
            if len(parents) < 2:
                return switch(rng)
            first, second = sorted(rng.sample(range(len(parents)), 2))
            taken = proposals.mask(budget.space.n_layers, rng)
            child = crossover_mask(profiles[parents[first]], profiles[parents[second]], taken)
            if budget.project(child.attention, child.mlp).profile in profiles.values():
                return switch(rng)
            bits = [int(bit) for bit in taken]
            return {"operator": "crossover", "parents": [parents[first], parents[second]], "mask": bits}

        def model(rng: random.Random) -> dict[str, Any]:
            if local is not None:  # the step first, then steps that might be as good
                step = local.draw(budget, rng) if next(steps) else local.step(budget)
                return vectors("mutation", [state["centre"]], step)
            assert surrogate is not None
            name = parent(rng)
            return vectors("mutation", [name], proposals.model(budget, surrogate, profiles[name], rng))

        def chance(rng: random.Random) -> dict[str, Any]:
            offer = rng.choice(turn.variants) if turn.variants else turn.tools
            call: dict[str, Any] = sample_call(offer[0]["function"]["parameters"], rng)
            return switch(rng) if call.get("draw") else call  # a draw is a switch that somebody else makes

        def scattered(rng: random.Random) -> dict[str, Any]:
            return vectors("initialise", [], random_profile(budget, rng))

        return {"switch": switch, "cross": cross, "model": model, "chance": chance, "random": scattered}[maker]

    def _cma(self, count: int, state: SearchState, taken: set[Profile]) -> list[Call]:
        """What CMA-ES asks for next; it remembers nothing but the memory."""
        sizes = [self.settings.initial, *[self.settings.offspring] * state["generation"]]
        start = founder(self.bench, self.arm)
        first = self.bench.fidelity[0]

        def fitness(profile: Profile) -> float | None:
            found = self.bench.fitness(profile, first)
            return found.kl if found else None

        calls: list[Call] = []
        for profile in cma_search.ask(self.bench.budget, start, sizes, fitness, self.settings.seed):
            if profile not in taken and len(calls) < count:
                taken.add(profile)
                call = vectors("initialise", [], profile)
                calls.append({"name": "prune_model", "arguments": {**call, "by": "cma"}})
        return calls


def learned(bench: Workbench, rows: Sequence[Candidate]) -> Surrogate:
    """The surrogate fitted to `rows`, as far as they are measured at the first fidelity and near the best."""
    fitness = {row.profile: bench.fitness(row.profile, bench.fidelity[0]) for row in rows}
    known = {profile: found.kl for profile, found in fitness.items() if found and found.kl is not None}
    near = {profile: kl for profile, kl in known.items() if kl <= NEAR * min(known.values())}
    return fit(bench.costs, list(near), list(near.values()))


def local_costs(bench: Workbench, centre: str) -> LocalCosts | None:
    """The local costs around the candidate `centre`, or None where there are no slopes of it.

    Their curvature is learned from the steps of this run, each of which starts from a candidate with slopes.
    """
    slopes = bench.slopes(bench.candidate(centre).profile) if centre else ()
    if not slopes:
        return None
    rows = bench.memory.recall(Candidate, run=bench.run)
    profiles = {row.id: row.profile for row in rows}
    known: dict[Profile, LocalCosts | None] = {}
    steps: list[tuple[float, float, float]] = []
    for row in rows:
        if row.proposed_by != "model" or row.operator != "mutation":
            continue
        start = profiles[row.parents[0]]
        change = measured_change(bench, row.profile, start)
        if change is None:
            continue
        derived = bench.memory.derived.setdefault(start, {})  # good until more slopes are measured there
        if row.profile not in derived:
            if start not in known:
                found = bench.slopes(start)
                known[start] = LocalCosts(bench.costs, start, found) if found else None
            local = known[start]
            if local is None:
                continue
            derived[row.profile] = local.terms(row.profile)
        own, slope = derived[row.profile]
        steps.append((own, slope, change))
    return LocalCosts(bench.costs, profiles[centre], slopes, learned_curvature(steps))


def measured_change(bench: Workbench, profile: Profile, start: Profile) -> float | None:
    """The fitness of `profile` less that of `start` at the highest fidelity that both were measured on."""
    for tokens in reversed(bench.fidelity):
        own, other = bench.fitness(profile, tokens), bench.fitness(start, tokens)
        if own and other and own.kl is not None and other.kl is not None:
            return own.kl - other.kl
    return None


def vectors(operator: str, parents: list[str], profile: Profile) -> dict[str, Any]:
    """The call that makes exactly `profile`."""
    return {
        "operator": operator,
        "parents": parents,
        "attention": list(profile.attention),
        "mlp": list(profile.mlp),
    }


def founder(bench: Workbench, arm: Arm) -> Profile:
    """The last named founder of an arm: the best informed one."""
    rows = bench.memory.recall(Candidate, run=bench.run, proposed_by="seed")
    return rows[len(arm.founders) - 1].profile if len(rows) >= len(arm.founders) else rows[-1].profile


def history(bench: Workbench, generation: int) -> list[dict[str, Record]]:
    """What every maker's offspring came to in the generations before `generation`, the first population left out."""
    rows: dict[int, list[Candidate]] = {}
    for row in bench.memory.recall(Candidate, run=bench.run):
        rows.setdefault(row.generation, []).append(row)
    closed = {one.number: set(one.survivors) for one in bench.memory.recall(Generation, run=bench.run)}
    found: list[dict[str, Record]] = []
    for number in range(1, generation):
        counts: dict[str, Record] = {}
        for row in rows.get(number, ()):
            before = counts.get(row.proposed_by, Record(0, 0))
            survived = row.id in closed.get(number, ())
            counts[row.proposed_by] = replace(before, made=before.made + 1, survived=before.survived + survived)
        found.append(counts)
    return found


def arm_of(settings: Settings) -> Arm:
    """The arm that the settings name."""
    return ARMS[settings.arm]
