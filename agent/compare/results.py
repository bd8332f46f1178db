"""What a comparison keeps of each run: one typed record, from which every table, curve and sentence is computed.

The first half says what it is, the second makes it from a finished run: from its result, its trace and its memory.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from self_pruner.agent.compare.plan import PlannedRun
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.holdout import FINISH_STEP
from self_pruner.agent.result.outcome import Outcome, Yield, reporting_scores, yields
from self_pruner.agent.result.recalibration import recalibrated_memory
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Judge, TraceRecord, read_trace
from self_pruner.agent.settings.limits import cost
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.evaluate import charge
from self_pruner.tools.evaluation.fitness import mean, perplexity
from self_pruner.tools.workbench import Workbench

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
    fallbacks: int  # turns that the tool decided because the brain kept failing
    yields: list[ProposerYield] = []


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
    runs: list[RunResult]

    @field_validator("format")
    @classmethod
    def _has_names_of_now(cls, _read: int) -> int:
        return CURRENT


# --- of a finished run --------------------------------------------------------------------------------------------


def run_result(
    planned: PlannedRun, prepared: Prepared, run: RunDirectory, outcome: Outcome, directory: str
) -> RunResult:
    """The record of one finished run, from its result, its trace and its memory."""
    settings, bench, memory = planned.settings, prepared.bench, prepared.bench.memory
    records = read_trace(run.trace)
    rows = memory.recall(Candidate, run=run.id)
    profile = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    fitness = bench.fitness(profile, settings.fidelity[-1])
    probe_tokens = outcome.spent["probe_tokens"]
    final = charge(bench, [row.profile for row in rows], FINISH_STEP)
    evaluated = outcome.spent["tokens"] - probe_tokens + final
    brain = outcome.spent["brain_tokens"]
    return RunResult(
        arm=planned.spec.text,
        model=settings.model,
        sparsity=planned.sparsity,
        seed=planned.seed,
        directory=directory,
        params=bench.budget.space.params(profile),
        attention=outcome.attention,
        mlp=outcome.mlp,
        fitness=fitness.kl if fitness else None,
        holdout=outcome.holdout.get(outcome.candidate),
        texts=text_results(bench, profile),
        recalibrated=recalibrated_results(bench, profile, outcome),
        curve=curve(records),
        cost=evaluated + probe_tokens + brain,
        evaluated_tokens=evaluated,
        probe_tokens=probe_tokens,
        brain_tokens=brain,
        brain_seconds=outcome.spent["brain_seconds"],
        search_seconds=60 * outcome.spent["search_minutes"],
        evaluations=int(outcome.spent["evaluations"]),
        repaired=sum(row.repaired > 0 for row in rows),
        repaired_units=sum(row.repaired for row in rows),
        invalid=int(outcome.spent["illegal"]),
        failed_turns=int(outcome.spent["failed_turns"]),
        fallbacks=int(outcome.spent["fallbacks"]),
        yields=proposer_yields(bench, records, rows),
    )


def text_results(bench: Workbench, profile: Profile) -> list[TextResult]:
    """A profile on every reporting text; those it could not be measured on are left out."""
    results = []
    for name, text in bench.reporting.items():
        kl, nll = reporting_scores(bench, profile, text)
        if len(kl) == bench.walks[text].targets.n_sequences:
            results.append(_text_result(name, kl, nll))
    return results


def recalibrated_results(bench: Workbench, profile: Profile, outcome: Outcome) -> list[TextResult]:
    """The same after recalibration, where the run did that."""
    if outcome.recalibration is None:
        return []
    with closing(recalibrated_memory(bench, profile)) as memory:
        return text_results(replace(bench, memory=memory), profile)


def curve(records: list[TraceRecord]) -> list[CurvePoint]:
    """Best fitness so far against what was spent, at every step that changed either."""
    points: list[CurvePoint] = []
    for record in records:
        if isinstance(record, Judge) and record.fitness is not None:
            point = CurvePoint(
                cost=cost(record.spent), seconds=60 * record.spent.get("minutes", 0.0), fitness=record.fitness
            )
            if not points or (points[-1].cost, points[-1].fitness) != (point.cost, point.fitness):
                points.append(point)
    return points


def proposer_yields(bench: Workbench, records: list[TraceRecord], rows: list[Candidate]) -> list[ProposerYield]:
    """What every proposer's candidates came to, generation by generation."""
    closed = bench.memory.recall(Generation, run=bench.run)
    return [
        ProposerYield(generation=number, **one.model_dump())
        for number in sorted({row.generation for row in rows})
        for one in yields(records, [row for row in rows if row.generation == number], bench.fidelity[0], closed)
    ]


def dense_result(prepared: Prepared) -> DenseResult:
    """The dense model's figures on the reporting texts."""
    bench = prepared.bench
    nll = {name: list(bench.walks[text].targets.nll) for name, text in bench.reporting.items()}
    texts = [_text_result(name, [0.0] * len(values), values) for name, values in nll.items()]
    return DenseResult(texts=texts, units={part: bench.budget.space.units(part) for part in PARTS})


def _text_result(name: str, kl: list[float], nll: list[float]) -> TextResult:
    return TextResult(text=name, kl=mean(kl), perplexity=perplexity(nll), kl_by_sequence=kl, nll_by_sequence=nll)
