"""The agent's own operators: what an arm does where it does not ask the brain.

Each makes profiles on budget, which `prune_model` writes down beside those that a brain asks for, so everything that
follows is the same for all. Whatever is random depends on the run's seed, the step and the number of the profile alone.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from self_pruner.agent.arms import Arm, Maker
from self_pruner.agent.brain.schema import sample_call
from self_pruner.agent.search.legal_calls import Facts, LegalTurn
from self_pruner.agent.search.operator_quotas import Record, quotas
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Generation, Operator
from self_pruner.tools.profiles import cma_search, proposals
from self_pruner.tools.profiles.operators import crossover_mask, mutate, random_profile
from self_pruner.tools.profiles.quadratic_model import LocalCosts, learned_curvature
from self_pruner.tools.profiles.surrogate import Surrogate, fit
from self_pruner.tools.prune_model import Proposal, PruneArguments, on_budget, propose
from self_pruner.tools.workbench import Workbench

ATTEMPTS = 32  # proposals tried for one that is new to the run
DRAWS = 64  # the same where the operators stand in for the brain
NEAR = 1.15  # times the best fitness; profiles further off say little about the neighbourhood of the best
SCREENED = ("switch", "cross")  # makers whose proposals are chosen among by what is predicted of them
OFFERS = 4  # proposals of these, of which the one of least predicted fitness is taken
ENOUGH = 8  # profiles measured before the surrogate predicts anything


@dataclass(frozen=True)
class Operators:
    """Makes the profiles of one turn."""

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

    def proposals(self, state: SearchState, facts: Facts, turn: LegalTurn) -> list[Proposal]:
        """The profiles of all makers but the brain that are still to make offspring; [] where only the brain is."""
        due = [(maker, count) for maker, count in self.open(state, facts.missing) if maker != "brain"]
        if not due:
            return []
        rows = self.bench.memory.recall(Candidate, run=self.bench.run)
        local = local_costs(self.bench, state["centre"]) if self.arm.learns else None
        surrogate = learned(self.bench, rows) if self.arm.learns and local is None else None
        taken = {row.profile.key() for row in rows}

        def made(maker: Maker, count: int) -> list[Proposal]:
            if maker == "cma":
                return self._cma(count, state, taken)
            source = self._source(maker, state, facts, turn, surrogate, local)
            return self._made(maker, count, state, source, self._predictor(maker, surrogate, local), taken)

        found = [proposal for maker, count in due for proposal in made(maker, count)]
        # where nobody finds anything new, the plainest operator fills up
        return found or made("switch", sum(count for _, count in due))

    def stand_ins(self, state: SearchState, missing: int) -> list[Proposal]:
        """Random profiles in a failing brain's place: at first from nothing, later mutations of the best parent.

        They are fewer than `missing` where `DRAWS` draws for one find nothing new.
        """
        budget = self.bench.budget
        taken = {row.profile.key() for row in self.bench.memory.recall(Candidate, run=self.bench.run)}
        parents = state["population"][:1]
        found: list[Proposal] = []
        for number in range(missing):
            rng = self.bench.rng("draw", state["next_id"] + number)
            for _ in range(DRAWS):
                if parents:
                    best = self.bench.candidate(parents[0]).profile
                    drawn = mutate(budget, best, rng, self.settings.mutation_step, rng.choice((1, 1, 2)))
                else:
                    drawn = random_profile(budget, rng)
                if drawn.key() not in taken:
                    taken.add(drawn.key())
                    operator: Operator = "mutation" if parents else "initialise"
                    found.append(on_budget(self.bench, drawn, operator, parents, "fallback", "drawn at random"))
                    break
        return found

    # --- making -------------------------------------------------------------------------------------------------

    def _made(
        self,
        maker: Maker,
        count: int,
        state: SearchState,
        source: Callable[[random.Random], Proposal],
        predict: Callable[[Profile], float] | None,
        taken: set[str],
    ) -> list[Proposal]:
        """Up to `count` proposals of one maker that are not in `taken`, which grows.

        Where their fitness can be predicted, each is the best of several.
        """
        found: list[Proposal] = []
        for number in range(count):
            rng = self.bench.rng("operator", maker, state["step"] + 1, number)
            offers: dict[str, Proposal] = {}
            for _ in range(ATTEMPTS):
                proposal = source(rng)
                if proposal["profile"] not in taken:
                    offers.setdefault(proposal["profile"], proposal)
                if len(offers) == (OFFERS if predict else 1):
                    break
            if offers:
                best = min(offers, key=lambda key: predict(Profile.from_key(key)) if predict else 0.0)
                taken.add(best)
                found.append({**offers[best], "proposed_by": maker})
        return found

    def _predictor(
        self, maker: Maker, surrogate: Surrogate | None, local: LocalCosts | None
    ) -> Callable[[Profile], float] | None:
        """What predicts the fitness of a maker's proposals, where its proposals are chosen among."""
        if local is not None and maker in SCREENED:
            return local.predict
        if surrogate is not None and surrogate.measured >= ENOUGH and maker in (*SCREENED, "model"):
            return surrogate.predict
        return None

    def _source(
        self,
        maker: Maker,
        state: SearchState,
        facts: Facts,
        turn: LegalTurn,
        surrogate: Surrogate | None,
        local: LocalCosts | None,
    ) -> Callable[[random.Random], Proposal]:
        """Makes one proposal of `maker` after another."""
        parents = facts.population or tuple(state["offspring"])  # the first population varies the founders
        profiles = {name: self.bench.candidate(name).profile for name in parents}
        budget = self.bench.budget
        steps = itertools.count()

        def best_founder() -> str:
            known = [(self.bench.costs.total(profiles[name]), name) for name in parents]
            return min(known)[1] if self.bench.probes else parents[-1]

        def parent(rng: random.Random) -> str:
            return proposals.choose_parent(parents, rng) if facts.population else best_founder()

        def moved(name: str, profile: Profile) -> Proposal:
            return on_budget(self.bench, profile, "mutation", [name], maker)

        def switch(rng: random.Random) -> Proposal:
            name = parent(rng)
            return moved(name, proposals.switch(budget, profiles[name], rng, facts.step))

        def cross(rng: random.Random) -> Proposal:
            if len(parents) < 2:
                return switch(rng)
            first, second = sorted(rng.sample(range(len(parents)), 2))
            pair = [parents[first], parents[second]]
            mask = proposals.mask(budget.space.n_layers, rng)
            child = crossover_mask(profiles[pair[0]], profiles[pair[1]], mask)
            crossed = on_budget(self.bench, child, "crossover", pair, maker, f"{sum(mask)} layers of {pair[1]}")
            return switch(rng) if Profile.from_key(crossed["profile"]) in profiles.values() else crossed

        def model(rng: random.Random) -> Proposal:
            if local is not None:  # the step first, then steps that might be as good
                return moved(state["centre"], local.draw(budget, rng) if next(steps) else local.step(budget))
            assert surrogate is not None
            name = parent(rng)
            return moved(name, proposals.model(budget, surrogate, profiles[name], rng))

        def chance(rng: random.Random) -> Proposal:
            offer = rng.choice(turn.variants) if turn.variants else turn.tools
            call = sample_call(offer[0]["function"]["parameters"], rng)
            return propose(self.bench, PruneArguments(**call), maker)

        def scattered(rng: random.Random) -> Proposal:
            return on_budget(self.bench, random_profile(budget, rng), "initialise", [], maker)

        return {"switch": switch, "cross": cross, "model": model, "chance": chance, "random": scattered}[maker]

    def _cma(self, count: int, state: SearchState, taken: set[str]) -> list[Proposal]:
        """What CMA-ES asks for next; it remembers nothing but the memory."""
        sizes = [self.settings.initial, *[self.settings.offspring] * state["generation"]]
        start = founder(self.bench, self.arm)
        first = self.bench.fidelity[0]

        def fitness(profile: Profile) -> float | None:
            found = self.bench.fitness(profile, first)
            return found.kl if found else None

        found: list[Proposal] = []
        for profile in cma_search.ask(self.bench.budget, start, sizes, fitness, self.settings.seed):
            if profile.key() not in taken and len(found) < count:
                taken.add(profile.key())
                found.append(on_budget(self.bench, profile, "initialise", [], "cma"))
        return found


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
