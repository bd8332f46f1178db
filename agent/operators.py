"""The tool's own operators as makers of calls: what an arm does where it does not ask the brain.

They make the same `prune_model` calls that a brain makes, with a `by` that says who made it, so everything that follows
is the same for all. Whatever is random depends on the run's seed, the step and the number of the call alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.arms import ARMS, Arm, Maker
from agent.brain.schema import sample_call
from agent.legal import Facts, LegalTurn
from agent.quotas import Record, quotas
from agent.settings import Settings
from agent.state import SearchState
from memory.profile import Profile
from memory.records import Candidate, Generation
from tools.pruning import cma_search, proposals
from tools.pruning.operators import crossover_mask, random_profile
from tools.pruning.sensitivity import local_costs, local_probes
from tools.pruning.surrogate import Surrogate, fit
from tools.pruning.tool import PruneArguments, propose
from tools.workbench import Workbench

Call = dict[str, Any]
ATTEMPTS = 32  # proposals tried for one that is new to the run
NEAR = 1.15  # times the best fitness; profiles further off say little about the neighbourhood of the best
SCREENED = ("switch", "cross", "model")  # makers whose proposals the surrogate chooses among
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
        surrogate = learned(self.bench, rows, state["probed"]) if self.arm.learns else None
        taken = {row.profile for row in rows}

        def made(maker: Maker, count: int) -> list[Call]:
            if maker == "cma":
                return self._cma(count, state, taken)
            source = self._source(maker, state, facts, turn, surrogate)
            return self._made(maker, count, state, source, surrogate, taken)

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
        surrogate: Surrogate | None,
        taken: set[Profile],
    ) -> list[Call]:
        """Up to `count` calls of one maker for profiles that are not in `taken`, which grows."""
        screens = surrogate and surrogate.measured >= ENOUGH and maker in SCREENED
        screened = self.settings.screen if screens else 1
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
                if surrogate and len(offers) > 1:
                    offers.sort(key=lambda offer: surrogate.predict(offer[0]))
                profile, call = offers[0]
                taken.add(profile)
                calls.append({"name": "prune_model", "arguments": {**call, "by": maker}})
        return calls

    def outcome(self, call: dict[str, Any]) -> Profile:
        """The profile that a call would make."""
        proposal = propose(self.bench, PruneArguments(**call))
        return self.bench.budget.project(proposal.attention, proposal.mlp, proposal.hold).profile

    def _source(
        self, maker: Maker, state: SearchState, facts: Facts, turn: LegalTurn, surrogate: Surrogate | None
    ) -> Callable[[random.Random], dict[str, Any]]:
        """Makes one proposal of `maker` after another, as the arguments of a call."""
        parents = facts.population or tuple(state["offspring"])  # the first population varies the founders
        profiles = {name: self.bench.candidate(name).profile for name in parents}
        local = bool(state["probed"])
        budget = self.bench.budget

        def best_founder() -> str:
            known = [(self.bench.costs.total(profiles[name]), name) for name in parents]
            return min(known)[1] if self.bench.probes else parents[-1]

        def parent(rng: random.Random) -> str:
            return proposals.choose_parent(parents, rng) if facts.population else best_founder()

        def switch(rng: random.Random) -> dict[str, Any]:
            name = parent(rng)
            return vectors("mutation", [name], proposals.switch(budget, profiles[name], rng, facts.step))

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
            assert surrogate is not None
            name = parent(rng)
            return vectors("mutation", [name], proposals.model(budget, surrogate, profiles[name], rng, local=local))

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


def learned(bench: Workbench, rows: Sequence[Candidate], probed: str = "") -> Surrogate:
    """The surrogate fitted to `rows`, as far as they are measured at the first fidelity and near the best.

    Its costs are those of the probes, corrected by what was measured around the candidate `probed`, if any was.
    """
    fitness = {row.profile: bench.fitness(row.profile, bench.fidelity[0]) for row in rows}
    known = {profile: found.kl for profile, found in fitness.items() if found and found.kl is not None}
    costs = bench.costs
    if probed:
        centre = bench.candidate(probed).profile
        around = {
            place: (profile, found.kl)
            for place, profile in local_probes(bench.budget.space, centre)
            if (found := bench.fitness(profile, bench.probe_tokens)) and found.kl is not None
        }
        base = bench.fitness(centre, bench.probe_tokens)
        if base and base.kl is not None:
            costs = local_costs(bench.budget.space, costs, centre, base.kl, around)
    near = {profile: kl for profile, kl in known.items() if kl <= NEAR * min(known.values())}
    return fit(costs, list(near), list(near.values()))


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
    rows = [row for row in bench.memory.recall(Candidate, run=bench.run) if 0 < row.generation < generation]
    closed = {one.number: set(one.survivors) for one in bench.memory.recall(Generation, run=bench.run)}
    found: list[dict[str, Record]] = []
    for number in range(1, generation):
        counts: dict[str, Record] = {}
        for row in rows:
            if row.generation == number:
                before = counts.get(row.proposed_by, Record(0, 0))
                survived = row.id in closed.get(number, ())
                counts[row.proposed_by] = replace(before, made=before.made + 1, survived=before.survived + survived)
        found.append(counts)
    return found


def arm_of(settings: Settings) -> Arm:
    """The arm that the settings name."""
    return ARMS[settings.arm]
