"""The agent's own operators: what an arm does where it does not ask the brain.

Each makes profiles on budget, which `prune_model` writes down beside those that a brain asks for, so everything that
follows is the same for all. Whatever is random depends on the run's seed, the step and the number of the profile alone.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.initial_population import UNIFORM, closed_form_of
from self_pruner.agent.search.learned_costs import believed, movable, quadratic_model, surrogate
from self_pruner.agent.search.legal_calls import Situation
from self_pruner.agent.search.planning.hypotheses import by_chance, by_rule, legal_shifts, line
from self_pruner.agent.search.planning.plan import FAVOURED, current_plan
from self_pruner.agent.search.planning.quotas import places, quotas
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS, Arm, OffspringProposer
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Operator
from self_pruner.tools.profiles import cma_search, proposals
from self_pruner.tools.profiles.operators import NothingMovesError, crossover_mask, mutate, random_profile
from self_pruner.tools.profiles.quadratic_model import QuadraticModel
from self_pruner.tools.profiles.shifts import Hypothesis
from self_pruner.tools.profiles.surrogate import Surrogate
from self_pruner.tools.prune_model import Proposal, on_budget

STATED = ("brain", "chance", "rule")  # whose candidates follow hypotheses, in an arm that plans
ATTEMPTS = 32  # proposals tried for one that is new to the run
DRAWS = 64  # the same where the operators stand in for the brain
OFFERS = 4  # draws from the surrogate, of which the one of least predicted fitness is taken
ENOUGH = 8  # profiles measured before the surrogate predicts anything


@dataclass
class Operators:
    """The operators of one turn."""

    history: SearchHistory
    settings: Settings
    state: SearchState

    @property
    def arm(self) -> Arm:
        return ARMS[self.settings.arm]

    @cached_property
    def local(self) -> QuadraticModel | None:
        """The quadratic model around the centre, where the arm learns and sensitivities are there."""
        return quadratic_model(self.history, self.state.centre) if self.arm.learns else None

    @cached_property
    def surrogate(self) -> Surrogate | None:
        """The surrogate, where the arm learns and there are no sensitivities yet."""
        return surrogate(self.history) if self.arm.learns and self.local is None else None

    @cached_property
    def taken(self) -> set[str]:
        """The profiles that the run has, and those that this turn proposes."""
        return {row.profile.key() for row in self.history.candidates.values()}

    def open(self, missing: int) -> list[tuple[OffspringProposer, int]]:
        """Who makes the `missing` offspring of this generation, and how many each."""
        if missing < 1:
            return []
        generation = self.state.generation
        rows = [row for row in self.history.candidates.values() if row.generation == generation and row.step > 0]
        made = Counter(row.proposed_by for row in rows)
        wanted = missing + len(rows)
        proposers = self._proposers() if generation else self.arm.initial or ("switch",)
        if generation:
            favoured = FAVOURED[current_plan(self.state).offspring]
            shares = places(self.settings, self.history.yields(), proposers, wanted, favoured)
        else:
            shares = quotas([], proposers, wanted)
        left: list[tuple[OffspringProposer, int]] = []
        for proposer in proposers:
            count = min(shares[proposer] - made[proposer], missing)
            if count > 0:
                left.append((proposer, count))
                missing -= count
        if missing and not left:  # whoever was to make them could not: the plainest operator fills up
            left.append(("random" if self.arm.name == "random" else "switch", missing))
        return left

    def _proposers(self) -> tuple[OffspringProposer, ...]:
        """Who makes offspring; hypotheses are a rule's where the brain states none, and nobody's where none can be."""
        if not self.arm.plans:
            return self.arm.vary
        if not all(movable(self.history, self.state)):
            return tuple(proposer for proposer in self.arm.vary if proposer not in STATED)
        stated = "hypotheses" in self.settings.planned or self.settings.brain_share == 0  # who then makes none
        return tuple("rule" if proposer == "brain" and not stated else proposer for proposer in self.arm.vary)

    def tries_plan(self, missing: int) -> bool:
        """Whether anything of a plan is tried: hypotheses where the brain has a share, anything else in any case."""
        return set(self.settings.planned) != {"hypotheses"} or "brain" in dict(self.open(missing))

    def share_of_brain(self, missing: int) -> int:
        """How many of the `missing` offspring the brain makes: all of them where nobody else is due."""
        return dict(self.open(missing)).get("brain", missing)

    def proposals(self, here: Situation) -> list[Proposal]:
        """The profiles of all that are still to make offspring, the brain's plan included.

        [] where only a brain is that writes each of its candidates itself.
        """
        planned = self.arm.plans and self.state.generation > 0
        due = [(proposer, count) for proposer, count in self.open(here.missing) if planned or proposer != "brain"]
        found = [one for proposer, count in due for one in self._made(proposer, count, here)]
        if due and not found:  # where nobody finds anything new, the plainest operator fills up
            found = self._made("switch", sum(count for _, count in due), here)
        return found

    def stand_ins(self, missing: int, for_brain: bool = True) -> list[Proposal]:
        """Random profiles where nobody else makes any: at first from nothing, later mutations of the best parent.

        They are fewer than `missing` where `DRAWS` draws for one find nothing new. What they are `for_brain` is said of
        them: the others are for operators that found nothing new.
        """
        bench, budget, parents = self.history.bench, self.history.bench.budget, self.state.population[:1]
        found: list[Proposal] = []
        why = "drawn at random" + (" in the brain's place" if for_brain else ", for the operators found nothing new")
        for number in range(missing):
            rng = bench.rng("draw", self.state.next_id + number)
            for _ in range(DRAWS):
                if parents:
                    best, switches = self.history.profile(parents[0]), rng.choice((1, 1, 2))
                    try:
                        drawn = mutate(budget, best, rng, self.settings.mutation_step, switches)
                    except NothingMovesError:
                        break
                else:
                    drawn = random_profile(budget, rng)
                if drawn.key() not in self.taken:
                    self.taken.add(drawn.key())
                    operator: Operator = "mutation" if parents else "initialise"
                    found.append(on_budget(budget, drawn, operator, parents, "fallback", why))
                    break
        return found

    def _made(self, proposer: OffspringProposer, count: int, here: Situation) -> list[Proposal]:
        """Up to `count` proposals of one proposer that the run has not.

        Where their fitness can be predicted, each is the best of several.
        """
        if proposer == "cma":
            return self._cma(count)
        if self.arm.plans and proposer in STATED:
            return self._lines(proposer, count, here)
        source, predict = self._source(proposer, here), self._predictor(proposer)
        found: list[Proposal] = []
        for number in range(count):
            rng = self.history.bench.rng("operator", proposer, self.state.step + 1, number)
            offers: dict[str, Proposal] = {}
            for _ in range(ATTEMPTS):
                try:
                    proposal = source(rng)
                except NothingMovesError:  # of this parent; another one may be drawn
                    continue
                if proposal["profile"] not in self.taken:
                    offers.setdefault(proposal["profile"], proposal)
                if len(offers) == (OFFERS if predict else 1):
                    break
            if offers:
                best = min(offers, key=lambda key: predict(Profile.from_key(key)) if predict else 0.0)
                self.taken.add(best)
                found.append({**offers[best], "proposed_by": proposer})
        return found

    def _lines(self, proposer: OffspringProposer, count: int, here: Situation) -> list[Proposal]:
        """Up to `count` candidates of hypotheses about the best parent; random ones where the brain stated none."""
        bench, parent = self.history.bench, here.population[0]
        profile = self.history.profile(parent)
        legal = legal_shifts(here)
        rng = bench.rng("hypotheses", proposer, self.state.generation)
        if proposer == "brain":
            stated: Sequence[Hypothesis] = current_plan(self.state).hypotheses
            if not stated:
                return self.stand_ins(count)
        elif proposer == "chance":
            stated = by_chance(legal, rng)
        else:
            costs = believed(self.history, self.settings, self.state)
            stated = by_rule(bench.budget, costs, profile, legal, rng)
        found: list[Proposal] = []
        for proposal in line(bench.budget, parent, profile, stated, proposer):
            if len(found) < count and proposal["profile"] not in self.taken:
                self.taken.add(proposal["profile"])
                found.append(proposal)
        return found

    def _predictor(self, proposer: OffspringProposer) -> Callable[[Profile], float] | None:
        """What predicts the fitness of a proposer's proposals, where its proposals are chosen among."""
        if proposer == "model" and self.surrogate is not None and self.surrogate.measured >= ENOUGH:
            return self.surrogate.predict
        return None

    def _source(self, proposer: OffspringProposer, here: Situation) -> Callable[[random.Random], Proposal]:
        """Makes one proposal of `proposer` after another."""
        history, budget = self.history, self.history.bench.budget
        # the first population varies the closed forms, and every other does where nothing is inherited
        parents = (here.population if self.arm.inherits else ()) or self._closed_forms()
        profiles = {name: history.profile(name) for name in parents}
        steps = itertools.count()

        def parent(rng: random.Random) -> str:
            if parents == here.population:
                return proposals.choose_parent(parents, rng)
            measured = history.ranked(list(parents))
            return measured[0] if measured else rng.choice(parents)

        def moved(name: str, profile: Profile) -> Proposal:
            return on_budget(budget, profile, "mutation", [name], proposer)

        def switch(rng: random.Random) -> Proposal:
            name = parent(rng)
            return moved(name, proposals.switch(budget, profiles[name], rng, here.step))

        def cross(rng: random.Random) -> Proposal:
            if len(parents) < 2:
                return switch(rng)
            first, second = sorted(rng.sample(range(len(parents)), 2))
            pair = [parents[first], parents[second]]
            mask = proposals.mask(budget.space.n_layers, rng)
            child = crossover_mask(profiles[pair[0]], profiles[pair[1]], mask)
            crossed = on_budget(budget, child, "crossover", pair, proposer, f"{sum(mask)} layers of {pair[1]}")
            return switch(rng) if Profile.from_key(crossed["profile"]) in profiles.values() else crossed

        def model(rng: random.Random) -> Proposal:
            if self.local is not None:  # the step first, then steps that might be as good
                step = self.local.draw(budget, rng) if next(steps) else self.local.step(budget)
                return moved(self.state.centre, step)
            assert self.surrogate is not None
            name = parent(rng)
            return moved(name, proposals.model(budget, self.surrogate, profiles[name], rng))

        def scattered(rng: random.Random) -> Proposal:
            return on_budget(budget, random_profile(budget, rng), "initialise", [], proposer)

        return {"switch": switch, "cross": cross, "model": model, "random": scattered}[proposer]

    def _cma(self, count: int) -> list[Proposal]:
        """What CMA-ES asks for next; it remembers nothing but the memory."""
        bench, budget, settings = self.history.bench, self.history.bench.budget, self.settings
        sizes = [settings.initial, *[settings.offspring] * self.state.generation]

        def fitness(profile: Profile) -> float | None:
            found = bench.fitness(profile, bench.fidelity[0])  # it need not be a candidate
            return found.kl if found else None

        found: list[Proposal] = []
        for profile in cma_search.ask(budget, self._middle_form(), sizes, fitness, settings.seed):
            if profile.key() not in self.taken and len(found) < count:
                self.taken.add(profile.key())
                found.append(on_budget(budget, profile, "initialise", [], "cma"))
        return found

    def _closed_forms(self) -> tuple[str, ...]:
        """Ids of the closed forms, without the uniform one where there are others."""
        rows = [row for row in self.history.candidates.values() if row.proposed_by == "seed"]
        return tuple(row.id for row in rows if row.detail != UNIFORM or len(rows) == 1)

    def _middle_form(self) -> Profile:
        """The one in the middle of those of the last closed form: nothing is measured yet when it is first needed."""
        rows = [self.history.candidates[name] for name in self._closed_forms()]
        last = [row for row in rows if closed_form_of(row) == closed_form_of(rows[-1])]
        return last[len(last) // 2].profile
