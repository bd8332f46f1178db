"""What a comparison keeps of each run: one typed record, from which every table, curve and sentence is computed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from self_pruner.agent.result.outcome import Yield
from self_pruner.agent.run_files.conditions import Conditions

CURRENT = 2  # format of `results.json`
OLDER = {"maker": "proposed_by", "unseen": "holdout"}  # names of format 1, which is read too


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")  # a perplexity may overflow

    @model_validator(mode="before")
    @classmethod
    def _with_names_of_now(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {OLDER.get(name, name): value for name, value in content.items()}


class CurvePoint(_Record):
    """The best fitness on the search's own text once `cost` tokens were spent."""

    cost: float  # tokens: evaluated, probed and the brain's
    seconds: float  # of search so far
    fitness: float  # KL, nats a token, at the last fidelity


class TextResult(_Record):
    """A profile on one reporting text."""

    text: str  # as the user named it
    kl: float  # nats a token
    perplexity: float
    kl_by_sequence: list[float]  # nats a token, one a sequence
    nll_by_sequence: list[float]  # nats a token


class DenseResult(_Record):
    """The dense model on the reporting texts."""

    texts: list[TextResult]  # kl 0
    units: dict[str, int]  # of a layer, by part: attention, mlp


class ProposerYield(Yield, _Record):
    """What the candidates of one proposer came to, by kind of operator."""

    generation: int | None = None  # None: of the whole run. Where known, proposers are compared within a generation


class RunResult(_Record):
    """One finished run of a comparison."""

    arm: str  # as written: name, name:PROMPTS, name+setting=value
    model: str
    sparsity: float  # asked for
    seed: int
    directory: str  # its run directory, relative to the comparison's
    params: int
    attention: list[int]  # units kept, one a layer
    mlp: list[int]
    fitness: float | None  # KL of the found profile on the tokens it was searched on
    holdout: float | None  # and on tokens of that text it was not searched on
    texts: list[TextResult]  # the found profile on each reporting text, compensated as searched
    recalibrated: list[TextResult] = []  # the same profile refitted on its own activations
    curve: list[CurvePoint] = []  # empty for closed forms
    cost: float  # tokens in all: evaluated + probed + brain
    evaluated_tokens: float  # search and final choice
    probe_tokens: float
    brain_tokens: float  # computed by the brain: read anew and written
    brain_seconds: float
    search_seconds: float
    evaluations: int
    repaired: int  # candidates that a repair changed
    repaired_units: int
    invalid: int  # replies that no rule allowed
    failed_turns: int
    fallbacks: int  # turns of the brain that the tool decided: it failed too often, or found nothing new
    yields: list[ProposerYield] = []
    brain: str | None = None  # fingerprint of another model than the target that was asked in the run's process
    prompts: str | None = None  # digest of the set that the brain read; None: not known, or no brain is asked
    versions: dict[str, str] | None = None  # of packages, that it was made with; None: those of its results
    machine: str | None = None  # that it was made on, in words


class Results(_Record):
    """Everything that a comparison's page is made of: `results.json`."""

    format: int = CURRENT
    command: str  # that made it
    model: str
    settings: dict[str, object]  # shared by all arms
    versions: dict[str, str]
    machine: str
    dense: list[TextResult]  # the dense model on each reporting text (kl 0)
    units: dict[str, int] = {}  # of a dense layer, by part: attention, mlp
    measured_on: str  # reporting texts, tokens, sequence length, in words
    arms: dict[str, str]  # arm as written -> what it means
    missing: list[str] = []  # runs that are not finished, in words
    bound: Conditions | None = None  # what they are measured with; None in results of before
    prompts: dict[str, list[str]] = {}  # by arm with prompts of its own: a unified diff from those it has without
    runs: list[RunResult]

    @field_validator("format")
    @classmethod
    def _has_names_of_now(cls, _read: int) -> int:
        return CURRENT
