"""The record of a finished run of a comparison, made from its result, its trace and its memory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from self_pruner.agent.compare.plan import PlannedRun
from self_pruner.agent.compare.results import CurvePoint, DenseResult, ProposerYield, RunResult, TextResult
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.brain_totals import yields_by_generation
from self_pruner.agent.result.holdout import FINISH_STEP
from self_pruner.agent.result.outcome import Outcome, reporting_scores
from self_pruner.agent.result.recalibration import recalibrated_memory
from self_pruner.agent.run_files.environment import installed, this_machine_in_words
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Judge, TraceRecord, read_trace
from self_pruner.agent.settings.limits import cost
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.evaluate import charge
from self_pruner.tools.evaluation.averages import mean, perplexity
from self_pruner.tools.workbench import Workbench


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
        brain=prepared.conditions.brain,
        prompts=planned.prompts(run.prompts),
        versions=installed(),
        machine=this_machine_in_words(),
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
    found = yields_by_generation(records, rows, bench.fidelity[0], closed)
    return [ProposerYield(generation=number, **one.model_dump()) for number, made in found.items() for one in made]


def dense_result(prepared: Prepared) -> DenseResult:
    """The dense model's figures on the reporting texts."""
    bench = prepared.bench
    nll = {name: list(bench.walks[text].targets.nll) for name, text in bench.reporting.items()}
    texts = [_text_result(name, [0.0] * len(values), values) for name, values in nll.items()]
    return DenseResult(texts=texts, units={part: bench.budget.space.units(part) for part in PARTS})


def _text_result(name: str, kl: list[float], nll: list[float]) -> TextResult:
    return TextResult(text=name, kl=mean(kl), perplexity=perplexity(nll), kl_by_sequence=kl, nll_by_sequence=nll)
