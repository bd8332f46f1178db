"""What the brain is shown: the variables of the prompts, read from the state and the memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.learned_costs import marginals
from self_pruner.agent.search.legal_calls import LegalCalls, Situation
from self_pruner.agent.search.planning.plan import least_hypotheses, planned_in
from self_pruner.agent.search.planning.shown import curve, lessons_shown, next_step, stretch_rows
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.limits import spent_share
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.records import Candidate
from self_pruner.prompts.variables import (
    Action,
    Ask,
    BudgetVariables,
    CandidateRow,
    DenseVariables,
    Hint,
    Hints,
    History,
    Kind,
    ModelVariables,
    Move,
    ProposerYield,
    RunVariables,
    SensitivityRow,
    Spent,
    UniformVariables,
    Variables,
)
from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.models.source import LoadedModel
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.prune_model import candidate_number
from self_pruner.tools.workbench import FITNESS, Workbench

SENSITIVITIES = 8  # most sensitive places shown
BEST, RECENT, FAILED, MOVES, NOTES = 4, 4, 2, 4, 2  # entries of the history


@dataclass(frozen=True)
class Observer:
    """Sees the search as one prompt set wants to see it."""

    settings: Settings
    run: RunVariables
    actions: tuple[Action, ...]
    hints: bool

    def variables(self, history: SearchHistory, state: SearchState, here: Situation, legal: LegalCalls) -> Variables:
        """Everything the prompt of this turn is made of."""
        kind: Kind = "survive" if legal.purpose == "evaluate" else legal.purpose
        return Variables(
            run=self.run,
            generation=state.generation,
            spent=self._spent(state),
            ask=Ask(
                kind=kind,
                count=legal.replies,
                fields=tuple(planned_in(legal)) if kind == "plan" else (),
                least=least_hypotheses(legal) if kind == "plan" else 1,
                tools=tuple(tool["function"]["name"] for tool in legal.tools) if kind == "free" else (),
                actions=self._offered(here, kind),
                parents=here.population,
                candidates=here.timeable,
                brackets=legal.brackets,
                thought=self.settings.thought_limit(here.space.dense_params) > 0,
            ),
            history=self._shown(history, state, here),
            hints=self._hints(history, state, here) if self.hints and kind in ("vary", "plan", "free") else Hints(),
        )

    def _offered(self, here: Situation, kind: Kind) -> tuple[Action, ...]:
        if kind in ("initialise", "plan"):
            return ("initialise",) if kind == "initialise" else ()
        unavailable: set[Action] = {"initialise"}
        if not (here.cut and here.grow):
            unavailable.add("mutation-edits")
        if not (here.take and here.give):
            unavailable.add("mutation-shift")
        if len(here.population) < 2:
            unavailable |= {"crossover-range", "crossover-mask"}
        return tuple(action for action in self.actions if action not in unavailable) or ("mutation-vectors",)

    def _spent(self, state: SearchState) -> Spent:
        return Spent(
            state.evaluations,
            self.settings.evaluations,
            state.tokens,
            round(state.seconds / 60, 1),
            spent_share(self.settings, state.spent),
        )

    def _shown(self, history: SearchHistory, state: SearchState, here: Situation) -> History:
        shown = here.ranked if not here.missing else here.population
        newest = sorted(history.candidates.values(), key=lambda row: -candidate_number(row.id))
        last = history.bench.fidelity[-1]
        scores = {row.id: history.fitness(row.profile, last) for row in newest}
        fitness = {name: found.kl for name, found in scores.items() if found and found.kl is not None}
        measured = [row for row in newest if row.id in fitness]
        failed = [row for row in newest if history.failure(row.profile)]
        rows = {
            "population": [history.candidates[name] for name in shown[: max(4, self.settings.population)]],
            "best": sorted(measured, key=lambda row: fitness[row.id])[:BEST],
            "recent": measured[:RECENT],
            "failed": failed[:FAILED],
        }
        return History(
            **{name: tuple(_row(history, row) for row in found) for name, found in rows.items()},
            moves=tuple(_moves(history, newest)),
            answers=tuple(state.said),
            lessons=tuple(lessons_shown(history)),
            curve=tuple(curve(history)),
            notes=tuple(one.note for one in history.generations[: -NOTES - 1 : -1] if one.note),
            user_notes=(),  # whoever asks the brain knows them
            yields=tuple(_yields(history)) if here.missing else (),
        )

    def _hints(self, history: SearchHistory, state: SearchState, here: Situation) -> Hints:
        costs = marginals(history, self.settings, state, here.population[0], here.step)
        parent = history.profile(here.population[0])
        shown: list[tuple[Hint, ...]] = []
        for places, grows in ((here.cut, False), (here.grow, True)):
            known = [(place, costs.get((place.layer, place.part, grows))) for place in places]
            shown.append(
                tuple(
                    Hint(place.layer, place.part, parent.widths(place.part)[place.layer], marginal.cost)
                    for place, marginal in known
                    if marginal is not None
                )
            )
        return Hints(shown[0], shown[1], stretch_rows(history, self.settings, state, here), next_step(history, state))


def _yields(history: SearchHistory) -> list[ProposerYield]:
    """What came of the offspring of every proposer so far."""
    made: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for generation in history.yields():
        for proposer, record in generation.items():
            made[proposer] += record.made
            survived[proposer] += record.survived
    ranked = sorted(made, key=lambda proposer: (-survived[proposer] / made[proposer], proposer))
    return [ProposerYield(proposer, made[proposer], survived[proposer]) for proposer in ranked]


def _moves(history: SearchHistory, newest: Sequence[Candidate]) -> list[Move]:
    """The effects of the brain's latest mutations by edits, newest first."""
    moves = []
    for row in newest:
        if row.proposed_by != "brain" or row.operator != "mutation" or row.detail == "whole vectors":
            continue
        change = _change(history, row)
        if change is not None:
            moves.append(Move(row.id, row.parents[0], row.detail, change))
        if len(moves) == MOVES:
            break
    return moves


def _row(history: SearchHistory, row: Candidate) -> CandidateRow:
    found = history.known_fitness(row.profile)
    timed = history.latencies.get(row.profile)
    return CandidateRow(
        id=row.id,
        fitness=found.kl if found else None,
        perplexity=perplexity([found.nll]) if found and found.nll is not None else None,
        change=_change(history, row),
        parents=row.parents,
        operator=row.operator,
        attention=row.profile.attention,
        mlp=row.profile.mlp,
        error=history.failure(row.profile),
        speedup=timed.values.get("speedup") if timed else None,
    )


def _change(history: SearchHistory, row: Candidate) -> float | None:
    """Fitness less that of the better parent."""
    return history.change(row.profile, *map(history.profile, row.parents))


def variables_of(bench: Workbench, loaded: LoadedModel, settings: Settings) -> RunVariables:
    """`run_variables` of the loaded target model, the dense one over the tokens of the last fidelity."""
    dense = perplexity(bench.walks[FITNESS].targets.nll[: settings.sequences(settings.fidelity[-1])])
    hidden_size: int = loaded.model.config.hidden_size
    return run_variables(bench, loaded.name, loaded.family.model_type, hidden_size, dense)


def run_variables(bench: Workbench, name: str, family: str, hidden_size: int, dense: float) -> RunVariables:
    """The part of the prompt that stays the same through a run.

    Args:
        bench: the workbench, with the uniform profile measured at the first fidelity.
        name: of the target model.
        family: of the target model.
        hidden_size: of the target model.
        dense: perplexity of the dense model on the fitness text.
    """
    found = bench.fitness(uniform(bench.budget), bench.fidelity[0])
    most = sorted(bench.probes, key=lambda probe: (-probe.fitness, probe.layer, probe.part))[:SENSITIVITIES]
    return replace(
        unmeasured(bench.budget, name, family, hidden_size),
        dense=DenseVariables(dense),
        uniform=UniformVariables(
            found.kl if found and found.kl is not None else math.nan,
            perplexity([found.nll]) if found and found.nll is not None else math.nan,
        ),
        sensitivities=tuple(SensitivityRow(probe.layer, probe.part, probe.width, probe.fitness) for probe in most),
    )


def unmeasured(budget: Budget, name: str, family: str, hidden_size: int) -> RunVariables:
    """The same before anything is measured: NaN stands for figures, and no place is known to be sensitive."""
    space = budget.space
    return RunVariables(
        model=ModelVariables(
            name,
            family,
            space.n_layers,
            space.n_groups,
            space.n_blocks,
            hidden_size,
            short_count(space.dense_params),
        ),
        budget=BudgetVariables(
            budget.sparsity,
            budget.target_params,
            short_count(budget.target_params),
            budget.group_in_blocks,
        ),
        dense=DenseVariables(math.nan),
        uniform=UniformVariables(math.nan, math.nan),
    )


def short_count(count: int) -> str:
    """A parameter count as people write it: 135M, 6.74B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
