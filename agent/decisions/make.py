"""How a decision set is made: short real searches bring situations, then every option is measured.

The searches are those of arm `hybrid` with random choices in the brain's place, one a seed, until every kind has its
situations. Outcomes are measured behind the tokens that the searches saw. All scores go to a memory beside the set, and
so does the state of every search, so after a kill the same command goes on with the turn or the situation in hand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from langgraph.runtime import RunControl

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.decisions.decision_set import (
    FILE,
    DecisionSet,
    DecisionSetError,
    DecisionSituation,
    Made,
    check_same,
    read_set,
)
from self_pruner.agent.decisions.kinds import KINDS
from self_pruner.agent.decisions.kinds.kind import Moment
from self_pruner.agent.dry_run.cost_estimate import SHARED
from self_pruner.agent.dry_run.dry_run import file_to_read
from self_pruner.agent.dry_run.machine_speed import measure_speed
from self_pruner.agent.prepare.run import with_probes
from self_pruner.agent.prepare.workbench import Prepared, prepare
from self_pruner.agent.run_files.checkpoints import checkpoints
from self_pruner.agent.run_files.conditions import VERSIONS
from self_pruner.agent.run_files.environment import version_of
from self_pruner.agent.search.graph import build_graph, search
from self_pruner.agent.search.initial_population import make_initial_population
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.legal_calls import LegalCalls, Situation, legal_calls
from self_pruner.agent.search.prompt_variables import Observer, variables_of
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings, text_label
from self_pruner.agent.view import View
from self_pruner.memory.profile import Profile
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.profiles.selection import paired
from self_pruner.tools.workbench import Workbench

MEMORY = "measured.sqlite"
SEARCH_STATE = "searches.sqlite"
RUN = "decisions"  # by which the memory knows what outcomes were measured for
OUTCOME_STEP = -3  # outcomes belong to no turn
SEARCHES = 32  # at the most; a model or a budget with so little to decide is refused
ENOUGH = "enough situations"


def searching(settings: Settings, folder: Path) -> Settings:
    """The settings of the searches that situations come from.

    Five survivors leave sixteen ways to choose them. Nothing ends a search but its evaluations: that another process
    has measured something must not change where it goes.
    """
    return settings.model_copy(
        update={
            "arm": "hybrid",
            "brain": "uniform",
            "brain_url": None,
            "memory": folder / MEMORY,
            "prompt_set": None,
            "prompts": None,
            "population": min(5, settings.offspring),
            "remembered": 0,
            "benchmarks": 0,
            "tokens": None,
            "minutes": None,
            "patience": settings.evaluations,
            "workers": 1,
            "reporting_tokens": settings.sequence_length,
        }
    )


def text_names(settings: Settings) -> str:
    """The names of the texts that outcomes are measured on, of files without their folders."""
    return ",".join(map(text_label, settings.fitness_texts))


def made_of(settings: Settings, prepared: Prepared, situations: int) -> Made:
    """What a set that these settings make is of."""
    return Made(
        model=prepared.loaded.name,
        weights=prepared.conditions.weights,
        dtype=prepared.conditions.dtype,
        params=prepared.bench.budget.target_params,
        texts={name: prepared.conditions.texts[name] for name in ("calibration", "fitness")},
        text=text_names(settings),
        first=settings.sequences(settings.fidelity[-1]),
        tokens=settings.final_tokens,
        length=settings.sequence_length,
        situations=situations,
        importance=settings.importance,
        compensation=settings.compensation,
        calibration=text_label(settings.calibration),
        calibration_sequences=prepared.calibration.shape[0],
        calibration_length=prepared.calibration.shape[1],
    )


def make(
    settings: Settings, folder: Path, kinds: Sequence[str], situations: int, command: str, view: View
) -> DecisionSet:
    """The decision set in `folder`, made or made whole; it is there after every situation.

    Args:
        settings: model, budget, texts and amounts; how the searches go is fixed (see `searching`).
        folder: made where there is none.
        kinds: of decision.
        situations: wanted of each.
        command: kept in the set.
        view: where the cost and the progress are shown.

    Raises:
        DecisionSetError: a set of something else is there, or searches bring too few situations.
    """
    path = folder / FILE
    searched = searching(settings, folder)
    with closing(prepare(searched, RUN, view)) as prepared:
        made = made_of(settings, prepared, situations)
        if path.exists():
            found = read_set(path)
            check_same(path, found.made, {name: getattr(made, name) for name in Made.__slots__ if name != "situations"})
            made = replace(found.made, situations=situations)  # what it does not know stays unknown
            found = replace(found, made=made, kinds=tuple(dict.fromkeys((*found.kinds, *kinds))))
        else:
            versions = {package: version_of(package) for package in VERSIONS}
            found = DecisionSet(made, tuple(kinds), command=command, versions=versions)
        view.line(_cost(found, searched, prepared))
        prepared = with_probes(prepared, searched, view, searched.prompts)
        seed = settings.seed
        while any(map(found.missing, found.kinds)):
            if len(found.searches) >= SEARCHES:
                short = next(kind for kind in found.kinds if found.missing(kind))
                raise DecisionSetError(
                    f"{SEARCHES} searches brought {len(found.of(short))} of {situations} situations of kind {short}: "
                    "ask for fewer --situations, more --evaluations, or another --sparsity"
                )
            while seed in found.searches:
                seed += 1
            with view.phase(f"Search {seed}"):
                found = _Search(prepared, searched.model_copy(update={"seed": seed}), found, folder).carried_out()
        with view.phase("Outcomes") as progress:
            for number, one in enumerate(found.situations):
                if not one.measured:
                    found = found.replaced(with_outcomes(prepared.bench, one, made))
                    found.save(path)
                progress(number + 1, len(found.situations))
    return found


def with_outcomes(bench: Workbench, situation: DecisionSituation, made: Made) -> DecisionSituation:
    """The situation with the outcome of every option: paired differences to the reference on the same sequences.

    Raises:
        DecisionSetError: a profile cannot be measured.
    """
    sequences = range(made.first, made.first + made.tokens // made.length)
    keys = dict.fromkeys([*situation.reference, *(key for option in situation.options for key in option.profiles)])
    measure(bench, [Profile.from_key(key) for key in keys], sequences, OUTCOME_STEP)
    scores: dict[str, list[float]] = {}
    for key in keys:
        known = bench.scores(Profile.from_key(key))
        values = [known[index].kl for index in sequences if index in known]
        scores[key] = [value for value in values if value is not None and math.isfinite(value)]
        if len(scores[key]) < len(sequences):
            fault = bench.failure(Profile.from_key(key)) or "its fitness is not finite"
            raise DecisionSetError(f"an option of situation {situation.id} cannot be measured: {fault}; try float32")

    def mean(names: Sequence[str]) -> list[float]:
        return [fmean(values) for values in zip(*(scores[name] for name in names), strict=True)]

    reference = mean(situation.reference)
    options = []
    for option in situation.options:
        found = paired(mean(option.profiles), reference)
        options.append(replace(option, outcome=found.mean, error=found.standard_error))
    return replace(situation, options=tuple(options))


@dataclass
class _Watched(Thinker):
    """A thinker that shows every turn, as if the brain were asked for the calls of it."""

    see: Callable[[SearchState, Situation, LegalCalls], None]

    def look(self, state: SearchState) -> Situation:
        """As ever, and shown."""
        here = super().look(state)
        self.see(state, here, legal_calls(here, self.observer.actions))
        return here


@dataclass
class _Search:
    """One search, which goes on where it was stopped, and the set that grows by its situations."""

    prepared: Prepared
    settings: Settings
    found: DecisionSet
    folder: Path

    def carried_out(self) -> DecisionSet:
        """The set with the situations of this search, as many as were missing, not yet measured."""
        settings, loaded = self.settings, self.prepared.loaded
        bench = replace(self.prepared.bench, run=f"{RUN}-{settings.seed}", seed=settings.seed)
        variables = variables_of(bench, loaded, settings)
        prompts, control = PromptSet("default"), RunControl()
        observer = Observer(settings, variables, prompts.actions, hints=True)

        def see(state: SearchState, here: Situation, legal: LegalCalls) -> None:
            self._take(Moment(thinker.history, settings, state, here, legal, observer, random.Random()))
            if not any(map(self.found.missing, self.found.kinds)):
                control.request_drain(ENOUGH)

        def nothing(record: object) -> None:
            """A search of the laboratory has no trace."""

        thinker = _Watched(
            bench,
            settings,
            UniformBrain(seed=settings.seed),
            prompts,
            observer,
            lambda messages: 0,
            loaded.model.config.max_position_embeddings,
            nothing,
            see,
        )
        seeds = make_initial_population(bench, ARMS[settings.arm], settings.remembered)
        with checkpoints(self.folder / SEARCH_STATE) as saver:
            graph = build_graph(thinker, Judgement(bench, settings, nothing), saver)
            search(graph, seeds, 0, control, bench.run)
        self._keep(replace(self.found, searches=(*self.found.searches, settings.seed)))
        return self.found

    def _take(self, moment: Moment) -> None:
        """Add what a turn offers, unless an attempt before this one has."""
        state, seed = moment.state, self.settings.seed
        origin = f"seed {seed}, generation {state.generation}"
        for name in self.found.kinds:
            kind = KINDS[name]
            if moment.legal.purpose not in kind.purposes or any(one.origin == origin for one in self.found.of(name)):
                continue
            rng = moment.history.bench.rng("decisions", name, state.generation)
            for choice in kind.choices(replace(moment, rng=rng))[: self.found.missing(name)]:
                # What a search has spent depends on the machine and on what was measured before.
                spent = replace(choice.variables.spent, minutes=0.0, tokens=0)
                one = DecisionSituation(
                    id=f"{name}-{len(self.found.of(name)) + 1}",
                    kind=name,
                    origin=origin,
                    variables=replace(choice.variables, spent=spent),
                    options=choice.options,
                    reference=choice.reference,
                    tool=choice.tool,
                )
                self.found = replace(self.found, situations=(*self.found.situations, one))
        self._keep(self.found)

    def _keep(self, found: DecisionSet) -> None:
        """All situations of a turn at once: they are there or they are not."""
        self.found = found
        found.save(self.folder / FILE)


def _cost(found: DecisionSet, settings: Settings, prepared: Prepared) -> str:
    """What is still to be measured, in tokens at the most and in minutes about, which a timing of one layer gives."""
    profiles = sum(len(one.options) + 1 for one in found.situations if not one.measured)
    profiles += sum(found.missing(kind) * KINDS[kind].profiles for kind in found.kinds)
    generations = max(1, settings.evaluations // settings.offspring)
    searches = math.ceil(max(map(found.missing, found.kinds)) / generations)
    each = settings.evaluations * (settings.fidelity[0] + settings.fidelity[-1] // 2)
    each += PASS_COST * generations * settings.sensitivity_tokens if settings.sensitivities else 0
    model, length = prepared.loaded.model, settings.sequence_length
    speed = measure_speed(model, str(model.device), model.dtype, length, 1, file_to_read(settings))
    tokens = profiles * found.made.tokens + searches * each
    seconds = tokens * (SHARED * model.config.num_hidden_layers * speed.layer + speed.head)
    return (
        f"To measure: at most {profiles * found.made.tokens:,} tokens of outcomes and about {searches * each:,} of "
        f"{searches} searches, roughly {max(1, round(seconds / 60))} min on this machine"
    )
