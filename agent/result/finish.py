"""After the search: choose on the holdout, measure on reporting text, time, export, verify, report.

Measurements go through the memory like all others, so a run that is killed here goes on where it was; the checkpoint is
written aside and renamed. The final choice is made on tokens of the fitness text that the search never saw, because a
search fits the ones it sees.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from self_pruner.agent.prepare.run import Run
from self_pruner.agent.prepare.time_budget import speed_facts
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.brain_totals import brain_faults, brain_totals
from self_pruner.agent.result.card_facts import card_facts
from self_pruner.agent.result.holdout import FINISH_STEP, best_on_holdout, compare_on_holdout
from self_pruner.agent.result.outcome import (
    FOUND,
    RECALIBRATED,
    Difference,
    Outcome,
    Row,
    TextRow,
    difference,
    fault_of,
    recalibration_sentence,
    row_of,
    yields,
)
from self_pruner.agent.result.recalibration import Recalibrated, recalibrated
from self_pruner.agent.result.zero_shot import models_of, with_tasks
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.trace import read_trace
from self_pruner.agent.search.history import best_of, closed_generations
from self_pruner.agent.search.initial_population import UNIFORM, spent_on_probes
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.settings import text_label
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.benchmark_latency import latency_setting, timed_all, timed_already
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.fitness import perplexity
from self_pruner.tools.export.publish import publish
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.sensitivity import closed_form
from self_pruner.tools.workbench import Workbench

VERIFIED_SEQUENCES, VERIFIED_TOKENS = 2, 64  # text on which the exported logits are compared
RESULT = "result.json"


def finish(run: Run, state: SearchState) -> Outcome:
    """Everything that follows the search; returns the result, which is also in `result.json`."""
    settings, bench, view = run.settings, run.bench, run.view
    with view.phase("Final choice on the holdout") as progress:
        holdout = compare_on_holdout(bench, settings, progress)
    if not holdout:
        view.warn("no candidate could be measured on the holdout; the best of the search is taken")
    best = best_on_holdout(holdout) or best_of(closed_generations(bench))
    found = bench.candidate(best).profile
    rows, differences = table(run, found)
    refitted = recalibrated(run.prepared, settings, found, view)
    records = read_trace(run.directory.trace)
    outcome = Outcome(
        candidate=best,
        attention=list(found.attention),
        mlp=list(found.mlp),
        dense={part: bench.budget.space.units(part) for part in PARTS},
        sparsity=bench.budget.space.sparsity(found),
        stop=state.stop,
        rows=refitted.beside(rows) if refitted else rows,
        differences=differences,
        holdout=holdout,
        measured_on=(
            f"{text_label(settings.reporting_texts[0])} (reporting part), {settings.reporting_tokens} tokens in "
            f"sequences of {settings.sequence_length}"
        ),
        latency_setting=latency_setting(bench) if settings.benchmarks or settings.in_time else None,
        spent={
            "evaluations": float(state.evaluations),
            "tokens": float(state.tokens),
            "brain_tokens": float(state.brain_tokens),
            "generation": float(state.generation),
            "probe_tokens": float(spent_on_probes(bench)),
            "search_minutes": round(state.seconds / 60, 2),
            "factorisations": float(bench.elastic.compensator.factorisations),
            "factored_places": float(len(bench.elastic.compensator.factored)),
            **memory_use(bench),
            **{f"brain_{name}": value for name, value in brain_totals(records).items()},
            **brain_faults(records),
        },
        yields=yields(
            records,
            bench.memory.recall(Candidate, run=bench.run),
            bench.fidelity[0],
            bench.memory.recall(Generation, run=bench.run),
        ),
        warnings=list(
            dict.fromkeys([*bench.elastic.warnings, *(refitted.elastic.warnings if refitted else []), *records.gaps()])
        ),
        texts=[*text_rows(bench, found), *(refitted.by_text() if refitted else [])],
        recalibration=refitted.facts if refitted else None,
        speed=speed_facts(run.prepared, settings, found, timed_already(bench)),
    )
    if settings.export:
        outcome = export_and_verify(with_result(run, refitted), outcome, run.directory.model)
    if settings.tasks:
        with models_of(bench, rivals(bench), found, refitted) as models:
            outcome = with_tasks(run.prepared, settings, run.directory, outcome, models, view)
    write_outcome(outcome, run.directory.path)
    return outcome


def memory_use(bench: Workbench) -> dict[str, float]:
    """Bytes of the weights, and the most memory this process has used: resident, and on the GPU where there is one."""
    scale = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kilobytes elsewhere
    used = {
        "weight_bytes": float(
            sum(weight.numel() * weight.element_size() for weight in bench.elastic.model.parameters())
        ),
        "peak_resident_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale),
    }
    if bench.elastic.device.type == "cuda":
        used["peak_gpu_bytes"] = float(torch.cuda.max_memory_allocated(bench.elastic.device))
    return used


def table(run: Run, found: Profile) -> tuple[list[Row], list[Difference]]:
    """The figures of `found` beside the dense model and the closed forms, on the reporting text."""
    settings, bench, view = run.settings, run.bench, run.view
    others = rivals(bench)
    models = {**others, FOUND: found}
    sequences = range(settings.sequences(settings.reporting_tokens))
    for name, text in bench.reporting.items():
        with view.phase(f"Reporting text {name}") as progress:
            measure(replace(bench, progress=progress), list(models.values()), sequences, FINISH_STEP, text)
    rows = [
        _dense_row(bench, bench.main_text),
        *(row_of(bench, name, profile, bench.main_text) for name, profile in models.items()),
    ]
    if settings.benchmarks or settings.in_time:
        with view.phase("Latency"):
            rows = with_latency(bench, rows, {name: models[name] for name in (UNIFORM, FOUND)})
    compared = [difference(bench, found, other, name, bench.main_text) for name, other in others.items()]
    return rows, [one for one in compared if one is not None]


def rivals(bench: Workbench) -> dict[str, Profile]:
    """The closed forms that every result stands beside: uniform, and the probes' where the run has any."""
    found = {UNIFORM: uniform(bench.budget)}
    if bench.probes:
        found["closed form"] = closed_form(bench.budget, bench.costs)
    return found


def text_rows(bench: Workbench, found: Profile) -> list[TextRow]:
    """Every model of the final table on every reporting text."""
    models = {**rivals(bench), FOUND: found}
    made = []
    for name, text in bench.reporting.items():
        rows = [_dense_row(bench, text), *(row_of(bench, model, profile, text) for model, profile in models.items())]
        made += [TextRow(text=name, name=row.name, kl=row.kl, perplexity=row.perplexity) for row in rows]
    return made


def with_latency(bench: Workbench, rows: Sequence[Row], profiles: dict[str, Profile]) -> list[Row]:
    """The rows with milliseconds; the dense model's are those measured beside the found profile."""
    found = timed_all(bench, list(profiles.values()), FINISH_STEP)
    values = {name: found[profile].values for name, profile in profiles.items()}
    dense = {name.removeprefix("dense_"): value for name, value in values["found"].items() if name.startswith("dense_")}
    values["dense"] = {**dense, "speedup": 1.0}
    columns = ("prefill_ms", "decode_ms", "tokens_per_second", "speedup")
    return [
        row.model_copy(update={column: values[row.name].get(column) for column in columns})
        if row.name in values
        else row
        for row in rows
    ]


def export_and_verify(run: Run, outcome: Outcome, folder: Path, *, overwrite: bool = True) -> Outcome:
    """Write the checkpoint, load it in a new process, compare its logits; raises where they differ."""
    bench = run.bench
    with run.view.phase("Export and verification", unit="bytes") as progress:
        verified = publish(
            bench.elastic,
            Profile(tuple(outcome.attention), tuple(outcome.mlp)),
            run.prepared.loaded.tokenizer,
            folder,
            card_facts(run.prepared, run.settings, outcome, run.directory),
            bench.walks[bench.main_text].input_ids[:VERIFIED_SEQUENCES, :VERIFIED_TOKENS],
            serving=run.settings.target,
            replace=overwrite,
            progress=progress,
        )
    return outcome.model_copy(update={"verified": verified})


def export_candidate(run: Run, outcome: Outcome, candidate: str | None, folder: Path) -> Outcome:
    """Measure any candidate of a finished run like the found one and write it to `folder`, which must not exist."""
    settings, bench = run.settings, run.bench
    profile = bench.candidate(candidate or outcome.candidate).profile
    rows, differences = table(run, profile)
    refitted = recalibrated(run.prepared, settings, profile, run.view)
    chosen = outcome.model_copy(
        update={
            "candidate": candidate or outcome.candidate,
            "attention": list(profile.attention),
            "mlp": list(profile.mlp),
            "sparsity": bench.budget.space.sparsity(profile),
            "rows": refitted.beside(rows) if refitted else rows,
            "differences": differences,
            "recalibration": refitted.facts if refitted else None,
            "speed": speed_facts(run.prepared, settings, profile, timed_already(bench)),
            "tasks": outcome.tasks if candidate in (None, outcome.candidate) else None,
        }
    )
    if refitted:
        run.view.line(recalibration_sentence(chosen))
    return export_and_verify(with_result(run, refitted), chosen, folder, overwrite=False)


def tasks_afterwards(run: Run, outcome: Outcome, candidate: str | None) -> Outcome:
    """The outcome of a finished run with the models of its final table, or one candidate, on the tasks."""
    settings, bench, view = run.settings, run.bench, run.view
    if candidate is not None:
        models = {candidate: (bench, bench.candidate(candidate).profile)}
        return with_tasks(run.prepared, settings, run.directory, outcome, models, view)
    found = bench.candidate(outcome.candidate).profile
    refitted = recalibrated(run.prepared, settings, found, view) if outcome.result == RECALIBRATED else None
    with models_of(bench, rivals(bench), found, refitted) as models:
        return with_tasks(run.prepared, settings, run.directory, outcome, models, view)


def with_result(run: Run, refitted: Recalibrated | None) -> Run:
    """The run with the weights that are the result."""
    return replace(run, prepared=with_weights(run.prepared, refitted))


def with_weights(prepared: Prepared, refitted: Recalibrated | None) -> Prepared:
    """The same with the weights that are the result."""
    if refitted is None:
        return prepared
    return replace(prepared, bench=replace(prepared.bench, elastic=refitted.elastic))


def _dense_row(bench: Workbench, text: str) -> Row:
    nll = bench.walks[text].targets.nll
    space = bench.budget.space
    return Row(name="dense", params=space.params(space.dense()), kl=0.0, perplexity=perplexity(nll))


def write_outcome(outcome: Outcome, run: Path) -> None:
    """Write the result of a run."""
    atomic_write(run / RESULT, outcome.model_dump_json(indent=2) + "\n")


def read_outcome(run: Path) -> Outcome | None:
    """The result of a finished run, or None."""
    path = run / RESULT
    if not path.is_file():
        return None
    try:
        outcome = Outcome.model_validate_json(path.read_text(encoding="utf-8"))
        if fault := fault_of(outcome):
            raise ValueError(fault)
        return outcome
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
