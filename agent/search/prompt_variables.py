"""What the brain is shown: the variables of the prompts, read from the state and the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from self_pruner.agent.search.legal_calls import Facts, LegalTurn
from self_pruner.agent.search.proposers import history
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.search.step_size import spent_share
from self_pruner.agent.search.turn_facts import marginals
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Generation, Score
from self_pruner.prompts.variables import (
    Action,
    Ask,
    BudgetFacts,
    CandidateRow,
    DenseFacts,
    Hints,
    History,
    Kind,
    MakerYield,
    ModelFacts,
    Move,
    Place,
    RunFacts,
    SensitivityRow,
    Spent,
    UniformFacts,
    Variables,
)
from self_pruner.tools.benchmark_latency import timed_already
from self_pruner.tools.evaluation.fitness import perplexity
from self_pruner.tools.prune_model import candidate_number
from self_pruner.tools.workbench import FITNESS, Workbench

SENSITIVITIES = 8  # most sensitive places shown
BEST, RECENT, FAILED, MOVES, NOTES = 4, 4, 2, 4, 2  # entries of the history


@dataclass(frozen=True)
class Observer:
    """Sees the search as one prompt set wants to see it."""

    bench: Workbench
    settings: Settings
    run: RunFacts
    actions: tuple[Action, ...]
    hints: bool

    def variables(self, state: SearchState, facts: Facts, turn: LegalTurn, minutes: float) -> Variables:
        """Everything the prompt of this turn is made of."""
        kind: Kind = "survive" if turn.kind == "evaluate" else turn.kind
        space = self.bench.budget.space
        return Variables(
            run=self.run,
            generation=state["generation"],
            spent=self._spent(state, minutes),
            ask=Ask(
                kind=kind,
                count=turn.replies,
                actions=self._offered(facts, kind),
                parents=facts.population,
                candidates=facts.timeable,
                brackets=turn.brackets,
                thought=self.settings.thought_limit(space.params(space.dense())) > 0,
            ),
            history=self._history(state, facts),
            hints=self._hints(state, facts) if self.hints and kind == "vary" else Hints(),
        )

    def _offered(self, facts: Facts, kind: Kind) -> tuple[Action, ...]:
        if kind == "initialise":
            return ("initialise",)
        unavailable: set[Action] = {"initialise"}
        if not (facts.cut and facts.grow):
            unavailable.add("mutation-edits")
        if len(facts.population) < 2:
            unavailable |= {"crossover-range", "crossover-mask"}
        if not facts.draws_left:
            unavailable.add("draw")
        return tuple(action for action in self.actions if action not in unavailable)

    def _spent(self, state: SearchState, minutes: float) -> Spent:
        limits = self.settings
        return Spent(
            state["evaluations"],
            limits.evaluations,
            state["tokens"],
            round(minutes, 1),
            spent_share(limits, state, minutes),
        )

    def _history(self, state: SearchState, facts: Facts) -> History:
        rows = {row.id: row for row in self.bench.memory.recall(Candidate, run=self.bench.run)}
        here = facts.ranked if not facts.missing else facts.population
        newest = sorted(rows.values(), key=lambda row: -candidate_number(row.id))
        scores = {row.id: self.bench.fitness(row.profile, self.bench.fidelity[-1]) for row in newest}
        fitness = {name: found.kl for name, found in scores.items() if found and found.kl is not None}
        measured = [row for row in newest if row.id in fitness]
        best = sorted(measured, key=lambda row: fitness[row.id])
        # of a failure there are no values; asked for all at once, since every candidate so far may be one
        faults = self.bench.memory.recall(Score, run=self.bench.run, text=FITNESS, kl=None, nll=None)
        unscored = {fault.profile for fault in faults}
        failed = [row for row in newest if row.profile in unscored]
        notes = self.bench.memory.recall(Generation, run=self.bench.run, order="-number", limit=NOTES)
        return History(
            population=tuple(self._row(rows[name]) for name in here[: max(4, self.settings.population)]),
            best=tuple(self._row(row) for row in best[:BEST]),
            recent=tuple(self._row(row) for row in measured[:RECENT]),
            failed=tuple(self._row(row) for row in failed[:FAILED]),
            moves=tuple(self._moves(newest)),
            notes=tuple(generation.note for generation in notes if generation.note),
            yields=tuple(self._yields(state)) if facts.missing else (),
        )

    def _yields(self, state: SearchState) -> list[MakerYield]:
        """What came of the offspring of every maker so far."""
        made: Counter[str] = Counter()
        survived: Counter[str] = Counter()
        for generation in history(self.bench, state["generation"]):
            for maker, record in generation.items():
                made[maker] += record.made
                survived[maker] += record.survived
        ranked = sorted(made, key=lambda maker: (-survived[maker] / made[maker], maker))
        return [MakerYield(maker, made[maker], survived[maker]) for maker in ranked]

    def _moves(self, newest: Sequence[Candidate]) -> list[Move]:
        """The effects of the brain's latest mutations by edits, newest first."""
        moves = []
        for row in newest:
            if row.proposed_by != "brain" or row.operator != "mutation" or row.detail == "whole vectors":
                continue
            change = self._change(row)
            if change is not None:
                moves.append(Move(row.id, row.parents[0], row.detail, change))
            if len(moves) == MOVES:
                break
        return moves

    def _row(self, row: Candidate) -> CandidateRow:
        found = self.bench.known_fitness(row.profile)
        timed = timed_already(self.bench).get(row.profile)
        return CandidateRow(
            id=row.id,
            fitness=found.kl if found else None,
            perplexity=perplexity([found.nll]) if found and found.nll is not None else None,
            change=self._change(row),
            parents=row.parents,
            operator=row.operator,
            attention=row.profile.attention,
            mlp=row.profile.mlp,
            error=self.bench.failure(row.profile),
            speedup=timed.values.get("speedup") if timed else None,
        )

    def _change(self, row: Candidate) -> float | None:
        """Fitness less that of the better parent, both at the highest fidelity that both were measured on."""
        for tokens in reversed(self.bench.fidelity):
            own = self.bench.fitness(row.profile, tokens)
            parents = [self.bench.fitness(self.bench.candidate(name).profile, tokens) for name in row.parents]
            known = [parent.kl for parent in parents if parent and parent.kl is not None]
            if own and own.kl is not None and known and len(known) == len(parents):
                return own.kl - min(known)
        return None

    def _hints(self, state: SearchState, facts: Facts) -> Hints:
        costs = marginals(self.bench, self.settings, state, facts.population[0], facts.step)
        parent = self.bench.candidate(facts.population[0]).profile
        shown: list[tuple[Place, ...]] = []
        for places, grows in ((facts.cut, False), (facts.grow, True)):
            known = [(place, costs.get((place.layer, place.part, grows))) for place in places]
            shown.append(
                tuple(
                    Place(place.layer, place.part, parent.widths(place.part)[place.layer], marginal.cost)
                    for place, marginal in known
                    if marginal is not None
                )
            )
        return Hints(*shown)


def run_facts(bench: Workbench, name: str, family: str, hidden_size: int, dense: float, uniform: Profile) -> RunFacts:
    """The part of the prompt that stays the same through a run.

    Args:
        bench: the workbench, with the uniform profile measured at the first fidelity.
        name: of the target model.
        family: of the target model.
        hidden_size: of the target model.
        dense: perplexity of the dense model on the fitness text.
        uniform: the uniform profile on budget.
    """
    space = bench.budget.space
    found = bench.fitness(uniform, bench.fidelity[0])
    most = sorted(bench.probes, key=lambda probe: (-probe.fitness, probe.layer, probe.part))[:SENSITIVITIES]
    return RunFacts(
        model=ModelFacts(
            name,
            family,
            space.n_layers,
            space.n_groups,
            space.n_blocks,
            hidden_size,
            short_count(space.params(space.dense())),
        ),
        budget=BudgetFacts(
            bench.budget.sparsity,
            bench.budget.target_params,
            short_count(bench.budget.target_params),
            bench.budget.group_in_blocks,
        ),
        dense=DenseFacts(dense),
        uniform=UniformFacts(
            found.kl if found and found.kl is not None else float("nan"),
            perplexity([found.nll]) if found and found.nll is not None else float("nan"),
        ),
        sensitivities=tuple(SensitivityRow(probe.layer, probe.part, probe.width, probe.fitness) for probe in most),
    )


def short_count(count: int) -> str:
    """A parameter count as people write it: 135M, 6.74B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
