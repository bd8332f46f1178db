"""From a finished run to the record that a comparison keeps of it, and from the dense targets to the dense model's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from self_pruner.agent.compare.plan import PlanError, PlannedRun
from self_pruner.agent.compare.results import CurvePoint, MakerYield, RunResult, TextResult
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.holdout import FINISH_STEP
from self_pruner.agent.result.outcome import Outcome, reporting_scores, yields
from self_pruner.agent.result.recalibration import recalibrated_memory
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Judge, TraceRecord, read_trace
from self_pruner.agent.search.state import cost
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.evaluate import charge
from self_pruner.tools.evaluation.fitness import mean, perplexity
from self_pruner.tools.workbench import Workbench

RECORD = "comparison.json"  # in the run directory
DENSE = "dense.json"  # in the comparison's


def run_result(
    planned: PlannedRun, prepared: Prepared, settings: Settings, run: RunDirectory, outcome: Outcome, directory: str
) -> RunResult:
    """The record of one finished run, from its result, its trace and its memory."""
    bench, memory = prepared.bench, prepared.bench.memory
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
        unseen=outcome.unseen.get(outcome.candidate),
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
        yields=maker_yields(bench, records, rows),
    )


def text_results(bench: Workbench, profile: Profile) -> list[TextResult]:
    """A profile on every reporting text; those it could not be measured on are left out."""
    results = []
    for name, text in bench.reporting.items():
        kl, nll = reporting_scores(bench, profile, text)
        if len(kl) == bench.walks[text].targets.n_sequences:
            results.append(
                TextResult(text=name, kl=mean(kl), perplexity=perplexity(nll), kl_by_sequence=kl, nll_by_sequence=nll)
            )
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


def maker_yields(bench: Workbench, records: list[TraceRecord], rows: list[Candidate]) -> list[MakerYield]:
    """What every maker's candidates came to, generation by generation."""
    closed = bench.memory.recall(Generation, run=bench.run)
    return [
        MakerYield(
            maker=one.proposed_by,
            operator=one.operator,
            made=one.made,
            compared=one.compared,
            improved=one.improved,
            survived=one.survived,
            generation=number,
        )
        for number in sorted({row.generation for row in rows})
        for one in yields(records, [row for row in rows if row.generation == number], bench.fidelity[0], closed)
    ]


def read_result(path: Path) -> RunResult:
    """The record at `path`.

    Raises:
        PlanError: it is damaged.
    """
    try:
        return RunResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path} is damaged: {str(error).splitlines()[0]}; delete it to run that arm again") from error


def write_dense(folder: Path, prepared: Prepared) -> None:
    """Keep the dense model's figures on the reporting texts."""
    bench = prepared.bench
    texts = []
    for name, text in bench.reporting.items():
        nll = list(bench.walks[text].targets.nll)
        result = TextResult(
            text=name, kl=0.0, perplexity=perplexity(nll), kl_by_sequence=[0.0] * len(nll), nll_by_sequence=nll
        )
        texts.append(result)
    keep_dense(folder, texts, {part: bench.budget.space.units(part) for part in PARTS})


def keep_dense(folder: Path, texts: Sequence[TextResult], units: Mapping[str, int]) -> None:
    """Write what `read_dense` reads."""
    content = {"texts": [text.model_dump() for text in texts], "units": units}
    atomic_write(folder / DENSE, json.dumps(content) + "\n")


def read_dense(folder: Path) -> tuple[list[TextResult], dict[str, int]]:
    """The dense model's figures and the units of its layers; empty before anything was prepared."""
    if not (folder / DENSE).is_file():
        return [], {}
    try:
        content = json.loads((folder / DENSE).read_text(encoding="utf-8"))
        units = {str(part): int(count) for part, count in dict(content["units"]).items()}
        return [TextResult.model_validate(one) for one in content["texts"]], units
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PlanError(
            f"{folder / DENSE} is damaged: {str(error).splitlines()[0]}; delete it, and it is measured again"
        ) from error
