"""The brain's turns before there is anything to decide: what it will read, what it may say, how much that is.

They are made by the run's own rules on a workbench without weights. What the rules need measurements for, later turns
above all, rests on invented ones in a memory of its own that is gone afterwards: they make prompts and schemas of the
right form and size, and nothing is concluded from them but that. Where such a prompt is shown, every invented figure
reads as a placeholder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

from self_pruner.agent.arms import ARMS, Maker
from self_pruner.agent.brain.branches import CHUNK
from self_pruner.agent.dry_run.counting import Tokens, room
from self_pruner.agent.dry_run.placeholders import RANKED, Unmeasured, Unranked
from self_pruner.agent.dry_run.talk import Talk, talk_of
from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.prepare.texts import slope_text
from self_pruner.agent.prepare.workbench import measuring
from self_pruner.agent.search.initial_population import DETAILS, is_probed
from self_pruner.agent.search.legal_calls import Facts, LegalTurn, legal_turn
from self_pruner.agent.search.prompt_variables import SENSITIVITIES, Observer, run_facts
from self_pruner.agent.search.proposers import Operators
from self_pruner.agent.search.state import SearchState, first_state
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.search.turn_facts import facts
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import PARTS, Part
from self_pruner.memory.records import Candidate, Generation, Proposer, Score
from self_pruner.memory.store import Memory
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import KINDS, DenseFacts, Kind, RunFacts, SensitivityRow, UniformFacts
from self_pruner.tools.profiles.operators import random_profile, uniform
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.workbench import FITNESS, Workbench

RUN = "rehearsal"
STEP, LATE = 1, 12  # of invented candidates; a generation whose history is full
EDITS = "L10.attention-1 L12.mlp+4 L14.mlp-4 L16.mlp+4"
NOTE = "Cut the mlp of the late layers and keep the attention of the first ones, they cost the most when they are cut."


@dataclass(frozen=True, slots=True)
class Asked:
    """The brain's first prompt and what it may answer."""

    kind: Kind
    generation: int
    prompt: Messages
    tools: tuple[dict[str, Any], ...]  # of the first reply, where replies differ
    replies: int  # sampled at once
    invented: bool  # whether candidates and places in the schema stand in for those that a run will have


@dataclass(frozen=True, slots=True)
class Opening:
    """How a run begins."""

    decided: dict[str, Any] | None  # the only legal call, where there is nothing to decide
    makers: tuple[tuple[Maker, int], ...]  # the tool's operators, and how many candidates each makes before the brain
    asked: Asked | None  # None where no brain is ever asked


@dataclass(frozen=True)
class Rehearsal:
    """A run's turns on a workbench without weights."""

    settings: Settings
    target: Target
    prompts: PromptSet
    bench: Workbench

    def opening(self) -> Opening:
        """What happens first, and what the brain is asked first.

        Raises:
            PromptTooLongError: the brain's first prompt has no room in the model's context.
        """
        begun, arm = self._founded("first"), self.operators.arm
        state = first_state(self.ids, 0)
        known = facts(begun.bench, self.settings, state)
        turn = legal_turn(known, self.prompts.actions)
        due = dict(begun.operators.open(state, known.missing))
        asked = None
        if "brain" in due:
            asked = begun._asked("initialise", 0)
        elif arm.survive == "brain":
            asked = begun._asked("latency" if self.settings.benchmarks else "survive", 0)
        elif "brain" in arm.vary:
            asked = begun._asked("vary", 1)
        makers = tuple((maker, count) for maker, count in due.items() if maker != "brain")
        return Opening(turn.decided, makers, asked)

    def talks(self) -> dict[Kind, Talk]:
        """What every kind of turn costs the brain, with a history as full as it gets.

        Raises:
            PromptTooLongError: a prompt has no room in the model's context.
        """
        tokens = Tokens(self.target.outline.tokenizer)
        space = self.target.budget.space
        found: dict[Kind, Talk] = {}
        for kind in KINDS:
            later = self._founded(kind)
            state, known, turn = later._turn(kind, 0 if kind == "initialise" else LATE)
            prompt = later._thinker(self._longest_facts()).prompt(state, known, turn)
            cached = tokens.of_text(prompt.system) // CHUNK * CHUNK
            offers = turn.variants or (turn.tools,)
            talks = [
                talk_of(
                    offer,
                    self.settings.thought_limit(space.params(space.dense())),
                    self.settings.call_tokens,
                    tokens.of_messages(prompt),
                    cached,
                    tokens.of_text,
                )
                for offer in offers
            ]
            found[kind] = max(talks, key=lambda talk: talk.reply)
        return found

    @property
    def ids(self) -> list[str]:
        """Ids of the founders."""
        return [f"c{number}" for number in range(1, len(self.operators.arm.founders) + 1)]

    @property
    def operators(self) -> Operators:
        """Who makes candidates."""
        return Operators(self.bench, self.settings, ARMS[self.settings.arm])

    def _founded(self, run: str) -> Rehearsal:
        """The same as a run named `run` that has its founders and nothing else."""
        equal = uniform(self.bench.budget)
        for number, name in enumerate(self.operators.arm.founders, start=1):
            self.bench.memory.record(
                Candidate(
                    run=run,
                    id=f"c{number}",
                    profile=equal,  # also in the place of those that follow from measurements
                    parents=(),
                    operator="initialise",
                    proposed_by="seed",
                    generation=0,
                    step=0,
                    call=0,
                    repaired=0,
                    params=self.bench.budget.space.params(equal),
                    detail=DETAILS[name],
                )
            )
        return replace(self, bench=replace(self.bench, run=run))

    def _asked(self, kind: Kind, generation: int) -> Asked:
        """The prompt of a turn with placeholders, after making sure that it has room."""
        state, known, turn = self._turn(kind, generation)
        self._thinker(self._longest_facts()).prompt(state, known, turn)
        thinker = self._thinker(self._run_facts(Unmeasured(), Unranked()))
        shown = thinker.observer.variables(state, known, turn, 0.0)
        if kind != "initialise":
            shown = replace(shown, history=_blank(shown.history), hints=_blank(shown.hints))
        tools = turn.variants[0] if turn.variants else turn.tools
        return Asked(kind, generation, self.prompts.render(shown), tools, turn.replies, kind != "initialise")

    def _turn(self, kind: Kind, generation: int) -> tuple[SearchState, Facts, LegalTurn]:
        """State, facts and legal calls of a turn of that kind; invents measurements where it needs them."""
        state = first_state(self.ids, 0)
        if kind != "initialise":
            names = self._invent(generation)
            survivors = names[: self.settings.population]
            state |= {"generation": max(1, generation), "population": survivors, "offspring": []}
            if kind != "vary":  # all candidates of the generation are made and measured
                state |= {"generation": generation, "offspring": names, "filled": True}
            if kind == "survive":
                state |= {"benchmarked": self.settings.benchmarks}
        known = facts(self.bench, self.settings, state)
        if known.missing:
            share = dict(self.operators.open(state, known.missing)).get("brain", known.missing)
            known = replace(known, missing=share)
        return state, known, legal_turn(known, self.prompts.actions)

    def _thinker(self, run: RunFacts) -> Thinker:
        prompts, reads = self.prompts, self.settings.reads
        tokens = Tokens(self.target.outline.tokenizer)
        return Thinker(
            bench=self.bench,
            settings=self.settings,
            brain=cast(Any, None),  # nobody is asked
            prompts=prompts,
            observer=Observer(self.bench, self.settings, run, prompts.actions, prompts.hints),
            count_tokens=tokens.of_messages if reads else lambda messages: 0,
            context=room(self.settings, self.target),
            trace=lambda record: None,
            operators=self.operators,
        )

    def _longest_facts(self) -> RunFacts:
        """What the prompts say of the whole run, with invented figures that are as long as measured ones."""
        return self._run_facts(88.88, self.bench.budget.space.n_layers - 1)

    def _run_facts(self, figure: float, layer: int) -> RunFacts:
        """What the prompts say of the whole run, with `figure` and `layer` in the place of all that is measured."""
        outline, space = self.target.outline, self.bench.budget.space
        config, equal = outline.model.config, uniform(self.bench.budget)
        known = run_facts(self.bench, outline.name, outline.family.model_type, config.hidden_size, figure, equal)
        places = sum(space.n_layers for part in PARTS if space.units(part) > 1)
        places = min(SENSITIVITIES, places) if is_probed(self.operators.arm, self.prompts) else 0
        part: Part = "attention" if not isinstance(layer, Unranked) else cast(Part, RANKED)
        return replace(
            known,
            dense=DenseFacts(figure),
            uniform=UniformFacts(figure, figure),
            sensitivities=(SensitivityRow(layer, part, layer, figure),) * places,
        )

    def _invent(self, generation: int) -> list[str]:
        """Record candidates with scores as a run has them in `generation`, and return their ids, best first."""
        bench, settings = self.bench, self.settings
        count = max(len(self.ids) + settings.initial, settings.population, 8 if generation > 1 else 0)
        proposers: list[Proposer] = ["brain", "switch"]
        names = []
        for number in range(1, count + 1):
            row = Candidate(
                run=bench.run,
                id=f"c{number}",
                profile=random_profile(bench.budget, bench.rng("invented", number)),
                parents=("c1",) if generation and number > 1 else (),
                operator="mutation" if generation else "initialise",
                proposed_by="seed" if number <= len(self.ids) else proposers[number % 2],
                generation=max(0, generation - 1),
                step=0 if number <= len(self.ids) else STEP,
                call=0,
                repaired=0,
                params=bench.budget.target_params,
                detail=EDITS if generation else "whole vectors",
            )
            bench.memory.record(row)
            for sequence in range(settings.sequences(settings.fidelity[-1])):
                bench.memory.record(Score(row.profile, FITNESS, sequence, 0.5 + 0.01 * number, 3.5, bench.run, STEP))
            names.append(row.id)
        if generation > 1:
            best = names[: settings.population]
            bench.memory.record(
                *(Generation(bench.run, number, tuple(best), best[0], NOTE, STEP) for number in range(generation))
            )
        return names


@contextmanager
def rehearsal(settings: Settings, target: Target, prompts: PromptSet) -> Iterator[Rehearsal]:
    """A rehearsal of a run of `settings`; what it writes is gone at the end of the block."""
    space = target.budget.space
    costs = Costs(*(tuple(_slope(layer, space.units(part)) for layer in range(space.n_layers)) for part in PARTS))
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.sqlite", RUN, {}) as memory:
        bench = Workbench(
            elastic=cast(Any, None),
            budget=target.budget,
            walks={},
            memory=memory,
            run=RUN,
            costs=costs,
            **measuring(settings),
            **slope_text(settings, settings.sequences(settings.fitness_tokens)),
        )
        yield Rehearsal(settings, target, prompts, bench)


def _slope(layer: int, units: int) -> tuple[float, ...]:
    """Invented costs of the widths of one place: falling, and not the same in every layer."""
    return tuple((1 + layer % 7) * (1 - width / units) / units for width in range(units + 1))


def _blank(value: Any) -> Any:
    """The same records with placeholders for every figure, width and layer in them."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return Unmeasured()
    if isinstance(value, int):
        return Unranked()
    if isinstance(value, tuple):
        return tuple(map(_blank, value))
    assert is_dataclass(value) and not isinstance(value, type)
    return replace(value, **{field.name: _blank(getattr(value, field.name)) for field in fields(value)})
