"""What this run has made and measured so far: read from the memory once a turn, then asked as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from self_pruner.agent.search.planning.quotas import Tally
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Fitness, Generation, Latency, Lesson, Score, Sensitivities
from self_pruner.tools.benchmark_latency import timed_already
from self_pruner.tools.profiles.quadratic_model import QuadraticModel
from self_pruner.tools.profiles.selection import rank
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.profiles.shifts import what_came
from self_pruner.tools.workbench import FITNESS, Workbench


@dataclass
class SearchHistory:
    """The candidates of one run, by id in the order they were made, and all that is known of them."""

    bench: Workbench
    free: bool = field(default=False, kw_only=True)  # whether candidates of closed generations may still be measured
    candidates: dict[str, Candidate] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)  # those closed so far, in their order
    lessons: list[Lesson] = field(default_factory=list)  # those of earlier runs that it began with, then its own
    latencies: dict[Profile, Latency] = field(default_factory=dict)
    _fitness: dict[tuple[Profile, int], Fitness] = field(default_factory=dict)  # by profile and sequences
    _failures: dict[Profile, str] = field(default_factory=dict)  # why measuring failed in this run
    _settled: set[Profile] = field(default_factory=set)  # read after their generation was closed: final
    _sensitivities: dict[Profile, tuple[Costs, ...]] = field(default_factory=dict)
    _terms: dict[tuple[Profile, Profile], tuple[float, float]] = field(default_factory=dict)  # by start and step
    _centre: str = ""

    def read(self, centre: str = "") -> SearchHistory:
        """Take in what is new since the last time, by at most one query of each kind; returns this history.

        Scores of a closed generation are final unless the brain is free, so only those of the open one are read again.

        Args:
            centre: the candidate whose first-order sensitivities were measured last, where the arm makes use of them.
        """
        memory, run = self.bench.memory, self.bench.run
        self.candidates = {row.id: row for row in memory.recall(Candidate, run=run)}
        self.generations = closed_generations(self.bench)
        self.lessons = memory.recall(Lesson)
        self.latencies = timed_already(self.bench)
        opened = list({row.profile for row in self.candidates.values()} - self._settled)
        if opened:
            for found in memory.recall(Fitness, profile=opened, text=FITNESS):
                self._fitness[found.profile, found.sequences] = found
            self._failures = {profile: error for profile, error in self._failures.items() if profile in self._settled}
            for score in memory.recall(Score, profile=opened, text=FITNESS, run=run):
                if score.error is not None:
                    self._failures.setdefault(score.profile, score.error)
            closed = set() if self.free else {one.number for one in self.generations}
            self._settled |= {row.profile for row in self.candidates.values() if row.generation in closed}
        if centre:
            self._read_sensitivities(centre)
        return self

    def harmful(self) -> tuple[tuple[str, str], ...]:
        """What gave and what took in shifts of this run that clearly made their parent worse, in every size."""
        lessons = [row for row in self.lessons if row.run == self.bench.run]
        own = [row for row in lessons if what_came(row.change, row.error) == "worse"]
        return tuple(dict.fromkeys((row.take, row.give) for row in own))

    def _read_sensitivities(self, centre: str) -> None:
        """Read the sensitivities at the centre and wherever a step of the operator `model` began, each once."""
        if centre != self._centre:  # measured since the last time, perhaps beside those of an earlier run
            start = self.candidates[centre].profile
            self._sensitivities.pop(start, None)
            self._terms = {key: terms for key, terms in self._terms.items() if key[0] != start}
            self._centre = centre
        starts = [self.candidates[row.parents[0]].profile for row in self.steps()]
        missing = [one for one in {self.candidates[centre].profile, *starts} if one not in self._sensitivities]
        if not missing:
            return
        found: dict[Profile, list[Costs]] = {profile: [] for profile in missing}
        for row in self.bench.memory.recall(Sensitivities, profile=missing, text=FITNESS, order="sequence"):
            found[row.profile].append(Costs(row.attention, row.mlp))
        wanted = self.bench.sensitivity_tokens // self.bench.sequence_length
        self._sensitivities |= {one: tuple(rows) if len(rows) >= wanted else () for one, rows in found.items()}

    def steps(self) -> list[Candidate]:
        """The candidates that the operator `model` made from another one."""
        rows = self.candidates.values()
        return [row for row in rows if row.proposed_by == "model" and row.operator == "mutation"]

    def sensitivities(self, profile: Profile) -> tuple[Costs, ...]:
        """The sensitivities at the centre or at the start of a step, one table a sequence; () without enough."""
        return self._sensitivities.get(profile, ())

    def terms(self, start: Profile, step: Profile) -> tuple[float, float] | None:
        """What the sensitivities at `start` predict of `step`, as `QuadraticModel.terms`; None where there are none."""
        found = self.sensitivities(start)
        if not found:
            return None
        if (start, step) not in self._terms:
            self._terms[start, step] = QuadraticModel(self.bench.costs, start, found).terms(step)
        return self._terms[start, step]

    def profile(self, candidate: str) -> Profile:
        """The profile of the candidate with that id."""
        return self.candidates[candidate].profile

    def fitness(self, profile: Profile, tokens: int) -> Fitness | None:
        """Mean scores over the first `tokens` tokens, in nats a token; None where they are not known or failed."""
        found = self._fitness.get((profile, tokens // self.bench.sequence_length))
        return found if found is not None and found.kl is not None else None

    def known_fitness(self, profile: Profile) -> Fitness | None:
        """The same at the highest fidelity that `profile` was measured on."""
        found = (self.fitness(profile, tokens) for tokens in reversed(self.bench.fidelity))
        return next((fitness for fitness in found if fitness is not None), None)

    def change(self, profile: Profile, *others: Profile) -> float | None:
        """Fitness less that of the best of `others`, at the highest fidelity that all of them were measured on."""
        for tokens in reversed(self.bench.fidelity):
            found = [self.fitness(one, tokens) for one in (profile, *others)]
            known = [one.kl for one in found if one is not None and one.kl is not None]
            if len(known) == len(found) > 1:
                return known[0] - min(known[1:])
        return None

    def failure(self, profile: Profile) -> str | None:
        """Why measuring `profile` failed in this run, or None; what failed in another one is tried anew."""
        return self._failures.get(profile)

    def ranked(self, candidates: list[str]) -> list[str]:
        """Those measured at the last fidelity, best first."""
        scores = {name: self.fitness(self.profile(name), self.bench.fidelity[-1]) for name in candidates}
        return rank({name: found.kl for name, found in scores.items() if found and found.kl is not None})

    def yields(self) -> list[dict[str, Tally]]:
        """What every operator's offspring came to in each closed generation but the initial population."""
        found: list[dict[str, Tally]] = [{} for _ in self.generations]
        survivors = [set(one.survivors) for one in self.generations]
        for row in self.candidates.values():
            if row.generation < len(found):
                before = found[row.generation].get(row.proposed_by, Tally(0, 0))
                survived = row.id in survivors[row.generation]
                found[row.generation][row.proposed_by] = replace(
                    before, made=before.made + 1, survived=before.survived + survived
                )
        return found[1:]


def closed_generations(bench: Workbench) -> list[Generation]:
    """The generations that the run has closed so far, in their order."""
    return sorted(bench.memory.recall(Generation, run=bench.run), key=lambda one: one.number)


def best_of(generations: Sequence[Generation]) -> str:
    """The id of the best candidate so far; an empty text before a generation is closed."""
    return generations[-1].best if generations else ""


def generations_since_best(generations: Sequence[Generation]) -> int:
    """How many generations have been closed since the one that found the best candidate."""
    best = best_of(generations)
    return len(list(takewhile(lambda one: one.best == best, reversed(generations)))) - 1
