"""What a template may use: frozen records, filled by the agent, in units and numbers only.

Two scopes. `RunVariables` do not change during a run, so `system.j2` is rendered to the same text every turn and stays
in the KV cache; `turn.j2` sees everything. `History` is the part that may be shortened when a prompt outgrows the
context (see `self_pruner.prompts.fit`). The table in README.md lists every name here; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from self_pruner.memory.profile import Part

Kind = Literal["initialise", "plan", "vary", "latency", "survive", "free"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Action = Literal[
    "initialise", "mutation-edits", "mutation-shift", "mutation-vectors", "crossover-range", "crossover-mask"
]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class ModelVariables:
    """The target model, dense."""

    name: str
    family: str
    n_layers: int
    n_groups: int  # attention units (KV groups) a layer
    n_blocks: int  # MLP units (blocks of channels) a layer
    hidden_size: int
    params_text: str  # "135M"


@dataclass(frozen=True, slots=True)
class BudgetVariables:
    """What every candidate must weigh."""

    sparsity: float  # share of decoder-block parameters removed, 0 to 1
    params: int  # all parameters of the pruned model
    params_text: str  # "103M"
    group_in_blocks: float  # what one attention unit weighs, in MLP units


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """The fitness measured when one part of one layer was cut and all else was dense."""

    layer: int
    part: Part
    probe_width: int  # units kept in the probe
    fitness: float


@dataclass(frozen=True, slots=True)
class DenseVariables:
    """The dense model's score; its fitness is 0 by definition."""

    perplexity: float


@dataclass(frozen=True, slots=True)
class UniformVariables:
    """The scores of equal widths in every layer at the same budget: what the search has to beat."""

    fitness: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A candidate and its scores; a failed one has an error and no scores."""

    id: str
    fitness: float | None
    perplexity: float | None
    change: float | None  # fitness minus that of its better parent: negative is better
    parents: tuple[str, ...]
    operator: str
    attention: tuple[int, ...]  # attention units kept, one a layer
    mlp: tuple[int, ...]  # MLP units kept, one a layer
    error: str | None = None
    speedup: float | None = None  # over the dense model, where benchmark_latency timed it


@dataclass(frozen=True, slots=True)
class Move:
    """What one of the brain's own moves did to the fitness."""

    child: str
    parent: str
    edits: str  # "layer 3 mlp -4, layer 9 mlp +4"
    change: float  # negative is better


@dataclass(frozen=True, slots=True)
class ProposerYield:
    """What came of the offspring of one proposer so far: the brain itself, or one of the tool's operators."""

    name: str
    made: int
    survived: int


@dataclass(frozen=True, slots=True)
class Spent:
    """How much of the run's limits is used."""

    evaluations: int
    max_evaluations: int
    tokens: int
    minutes: float
    share: float  # of the limit that is nearest, 0 to 1


@dataclass(frozen=True, slots=True)
class Hint:
    """One part of one layer of the better parent, and what a unit there is worth."""

    layer: int
    part: Part
    width: int  # units the better parent keeps here
    cost: float  # fitness lost by cutting one more MLP unit's worth of parameters here


@dataclass(frozen=True, slots=True)
class StretchRow:
    """One part of a run of layers of the better parent, what it is worth, and what came of moving it."""

    name: str  # "mlp 20-24": how a shift names it
    kept: float  # share of its units, 0 to 1
    cut: float  # fitness lost by an MLP unit's worth of parameters less
    grow: float  # fitness gained by as much more
    gives: bool = True  # whether a shift may take from it
    takes: bool = True  # whether one may give to it


@dataclass(frozen=True, slots=True)
class StepRow:
    """What the operator `model` would do next, by stretches, and what it predicts of that."""

    moves: tuple[str, ...]  # "mlp 20-24 -6", the largest first
    change: float  # of the fitness, negative is better


@dataclass(frozen=True, slots=True)
class LessonRow:
    """A hypothesis, and what came of it."""

    amount: str  # little, some or much
    take: str  # the stretch that gave, such as "mlp 20-24"
    give: str  # the stretch that took
    expected: str  # better, same or worse
    verdict: str  # held, failed or unclear
    change: float  # of the fitness by its best size, negative is better
    sparsity: float  # of the run that it is of
    earlier: bool  # whether that is an earlier run
    model: str = ""  # that it is of, where it is another one of the same family


@dataclass(frozen=True, slots=True)
class Hints:
    """Shortlists, in the order they are to be read; all empty where the set wants no hints."""

    cut: tuple[Hint, ...] = ()
    grow: tuple[Hint, ...] = ()
    stretches: tuple[StretchRow, ...] = ()  # what shifts are between
    step: StepRow | None = None  # none where nothing is measured to first order


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked now. `kind` chooses the file `ask_<kind>.j2`."""

    kind: Kind
    count: int = 1  # calls sampled this turn, one candidate each
    fields: tuple[str, ...] = ()  # what of the plan is to be decided, at "plan"
    least: int = 1  # hypotheses that it must have, at "plan"
    tools: tuple[str, ...] = ()  # names of those that may be called, at "free"
    actions: tuple[Action, ...] = ()  # what prune_model may be asked for now, at "initialise" and "vary"
    parents: tuple[str, ...] = ()  # ids that may be parents at "vary", better first
    candidates: tuple[str, ...] = ()  # ids that may be timed at "latency", better first
    # At "latency" and "survive": one bracket a survivor's place, the ids it may hold, better first.
    brackets: tuple[tuple[str, ...], ...] = ()
    thought: bool = True  # whether the reply starts with a line of thought


@dataclass(frozen=True, slots=True)
class RunVariables:
    """The variables of `system.j2`, fixed within a run."""

    model: ModelVariables
    budget: BudgetVariables
    dense: DenseVariables
    uniform: UniformVariables
    sensitivities: tuple[SensitivityRow, ...] = ()  # a shortlist, in the order it is to be read


@dataclass(frozen=True, slots=True)
class History:
    """What happened so far. In every list what matters most comes first, so a list is shortened from its end."""

    population: tuple[CandidateRow, ...] = ()  # what may be chosen from now, better first
    best: tuple[CandidateRow, ...] = ()  # of all candidates so far, better first
    recent: tuple[CandidateRow, ...] = ()  # newest first
    failed: tuple[CandidateRow, ...] = ()  # newest first
    moves: tuple[Move, ...] = ()  # newest first
    lessons: tuple[LessonRow, ...] = ()  # newest first, then those of earlier runs
    curve: tuple[float, ...] = ()  # fitness of the best after each generation, newest first
    answers: tuple[str, ...] = ()  # of the tools to the last calls, newest first, at "free"
    notes: tuple[str, ...] = ()  # the brain's own, newest first
    user_notes: tuple[str, ...] = ()  # what a person told the run, newest first
    yields: tuple[ProposerYield, ...] = ()  # the proposers of this run, those whose offspring survive most often first

    @property
    def rows(self) -> dict[str, CandidateRow]:
        """The candidates that are shown, by id."""
        return {row.id: row for row in (*self.recent, *self.best, *self.population)}


@dataclass(frozen=True, slots=True)
class Variables:
    """Everything one turn's prompt is made of."""

    run: RunVariables
    generation: int
    spent: Spent
    ask: Ask
    history: History = History()
    hints: Hints = Hints()

    def for_system(self) -> dict[str, Any]:
        """The names `system.j2` may use."""
        return _named(self.run)

    def for_turn(self) -> dict[str, Any]:
        """The names `turn.j2` and all it includes may use."""
        own = {name: getattr(self, name) for name in _names(Variables) if name not in ("run", "history")}
        return _named(self.run) | _named(self.history) | own


def _names(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(record))


def _named(record: RunVariables | History) -> dict[str, Any]:
    """A record as a dictionary, one level deep (its values stay records)."""
    return {name: getattr(record, name) for name in _names(type(record))}


SYSTEM_NAMES: frozenset[str] = frozenset(_names(RunVariables))
TURN_NAMES: frozenset[str] = SYSTEM_NAMES | (frozenset(_names(History) + _names(Variables)) - {"run", "history"})
