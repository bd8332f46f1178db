"""What can be remembered: one frozen record a fact, and the natural key by which the same fact is the same row.

Facts are of two sorts. What a run decided (`Candidate`, `Generation`, `Lesson`, `PromptUse`) belongs to that run: told
again, by a step that was run again after a kill, it replaces itself. What was measured (`Score`, `Sensitivities`,
`TaskScore`, `Latency`) belongs to the profile and serves every run with the same context: the first measurement stands,
and only a failed one gives way to one that worked.
`Fitness` is never recorded; it is what the scores add up to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from self_pruner.memory.profile import Profile

Operator = Literal["initialise", "crossover", "mutation"]
# Who proposed a candidate: the brain, chance among the brain's legal calls, the rule that stands in for its hypotheses,
# one of the tool's operators, the tool in a failing brain's place, a closed form, or an earlier run.
Proposer = Literal[
    "brain",
    "chance",
    "rule",
    "switch",
    "cross",
    "blend",  # of earlier versions
    "model",
    "cma",
    "random",
    "fallback",
    "seed",
    "memory",
]
RANDOM: tuple[Proposer, ...] = ("chance", "fallback")  # those that choose by chance among legal calls
Verdict = Literal["held", "failed", "unclear"]
FITNESS = "fitness"  # name of the text that a search is measured on, in the scores on it


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile proposed in a run: where it came from and what repair did to it."""

    key: ClassVar[tuple[str, ...]] = ("run", "id")

    run: str
    id: str  # unique within the run
    profile: Profile  # after repair to the budget
    parents: tuple[str, ...]  # ids of candidates of the same run
    operator: Operator
    proposed_by: Proposer
    generation: int
    step: int  # the step of the run that made it
    call: int  # which tool call of that step
    repaired: int  # units that repair changed
    params: int  # parameters of the whole pruned model
    detail: str  # what the operator did, in words: edits, layer range, mask


@dataclass(frozen=True, slots=True)
class Score:
    """What one profile scored on one sequence of one text; a failure is a row with `error` set and no values."""

    key: ClassVar[tuple[str, ...]] = ("profile", "text", "sequence")

    profile: Profile
    text: str  # names the text, its part and the sequence length
    sequence: int  # index of the sequence in that text, from 0
    kl: float | None  # nats a token
    nll: float | None  # nats a token
    run: str  # who measured it first
    step: int
    error: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a failure would pass for a measurement."""
        values = [value for value in (self.kl, self.nll) if value is not None]
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f"a score must be finite, got kl={self.kl!r} nll={self.nll!r}: record the failure as `error`"
            )
        if (self.error is None) == (not values):
            raise ValueError(f"a score has values or an error, got {values} and {self.error!r}")


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """To first order, how the KL of one profile changes on one sequence with every width of every place."""

    key: ClassVar[tuple[str, ...]] = ("profile", "text", "sequence")

    profile: Profile
    text: str
    sequence: int
    attention: tuple[tuple[float, ...], ...]  # nats a token, by layer and width from 0 to dense; 0 at its own width
    mlp: tuple[tuple[float, ...], ...]
    run: str  # who measured it first
    step: int


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How one profile did on the first rows of one task; a failure is a row with `error` set and no value."""

    key: ClassVar[tuple[str, ...]] = ("profile", "task", "metric", "data")

    profile: Profile
    task: str  # as the evaluation harness names it: boolq, arc_easy, ...
    rows: int  # how many were asked
    metric: str  # acc or acc_norm
    data: str  # digest of those rows and of how they are asked
    value: float | None  # share of right answers
    standard_error: float | None  # None for a single row
    run: str  # who measured it first
    step: int
    error: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a failure would pass for a measurement."""
        if self.value is not None and not 0 <= self.value <= 1:  # false for NaN too
            raise ValueError(f"an accuracy lies between 0 and 1, got {self.value!r}: record the failure as `error`")
        if (self.error is None) == (self.value is None):
            raise ValueError(f"a task score has a value or an error, got {self.value!r} and {self.error!r}")


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast one profile ran in one setting, which names the device, the token counts and the batch."""

    key: ClassVar[tuple[str, ...]] = ("profile", "setting")

    profile: Profile
    setting: str
    values: dict[str, float]  # milliseconds, tokens a second, ratios: as named by the tool
    run: str
    step: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A closed generation: who survived, who is best, and the brain's note for its future self."""

    key: ClassVar[tuple[str, ...]] = ("run", "number")

    run: str
    number: int
    survivors: tuple[str, ...]  # candidate ids, best first
    best: str
    note: str
    step: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """What became of one hypothesis: that a shift between two stretches of layers would do something."""

    key: ClassVar[tuple[str, ...]] = ("run", "generation", "number")

    run: str
    generation: int
    number: int  # of the hypothesis, from 0
    take: str  # what gave, such as "mlp 20-24"
    give: str  # what took
    amount: str  # little, some or much
    expected: str  # better, same or worse
    verdict: Verdict
    change: float  # fitness of the best size less that of the parent, in nats a token
    error: float  # its standard error
    evidence: tuple[str, ...]  # ids of the candidates, one a size
    params: int  # parameters of the whole pruned model
    step: int
    model: str = ""  # that learnt it, where it is another one: then stretches and params are carried over to this one


@dataclass(frozen=True, slots=True)
class PromptUse:
    """What came of a prompt set in one run."""

    key: ClassVar[tuple[str, ...]] = ("run",)

    run: str
    digest: str  # of the files of the set
    name: str  # of the set, or of the folder that it was in
    brain: str  # who read it
    turns: int  # in which the brain was asked
    replies: int
    illegal: int  # replies that no rule allowed
    failed: int  # turns that came to nothing
    tokens: int  # read and written by the brain
    made: int  # candidates
    repaired: int  # units that repair changed in them
    compared: int  # variations that were measured beside their parents
    improved: int  # of these, how many were better
    chance_compared: int  # the same of random choices among the same calls, where the run drew them
    chance_improved: int
    step: int


@dataclass(frozen=True, slots=True)
class Fitness:
    """Mean of a profile's scores over the first `sequences` sequences of a text; exists only where none is missing.

    Derived from `Score` rows: it can be recalled, not recorded.
    """

    key: ClassVar[tuple[str, ...]] = ("profile", "text", "sequences")

    profile: Profile
    text: str
    sequences: int
    kl: float | None  # nats a token; None where a sequence has no KL
    nll: float | None


Fact = Candidate | Score | Sensitivities | TaskScore | Latency | Generation | Lesson | PromptUse
