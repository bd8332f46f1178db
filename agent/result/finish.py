"""After the search, step by step: choose on the holdout and measure on reporting text, recalibrate, export and verify.

Each step gives the result as far as it is known then, to be kept before the next begins. Measurements go through the
memory like all others, so a run that is killed here goes on where it was; the checkpoint is written aside and renamed.
The final choice is made on tokens of the fitness text that the search never saw, because a search fits the ones it
sees.
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
from self_pruner.agent.result.brain_totals import brain_faults, brain_totals, choices, notes_read, prompt_use, yields
from self_pruner.agent.result.card_facts import card_facts
from self_pruner.agent.result.holdout import FINISH_STEP, choose_on_holdout
from self_pruner.agent.result.outcome import (
    FOUND,
    Difference,
    Outcome,
    Row,
    Served,
    TextRow,
    difference,
    recalibration_sentence,
    row_of,
)
from self_pruner.agent.result.recalibration import Recalibrated, recalibrated
from self_pruner.agent.run_files.trace import read_trace
from self_pruner.agent.search.history import best_of, closed_generations
from self_pruner.agent.search.initial_population import (
    CLOSED_FORM,
    UNIFORM,
    closed_form_of,
    closed_form_profiles,
    spent_on_probes,
)
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.arms import ARMS, ClosedForm
from self_pruner.agent.settings.panels import OWN
from self_pruner.agent.settings.settings import text_label
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import Candidate, Generation
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.benchmark_latency import latency_setting, timed_all, timed_already, without_graphs
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.export.publish import publish
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.workbench import FITNESS, LatencyEngine, Workbench

VERIFIED_SEQUENCES, VERIFIED_TOKENS = 2, 64  # text on which the exported logits are compared


def choose(run: Run, state: SearchState) -> Outcome:
    """The result of a search as far as it is known before recalibration: whom it found, compared and measured."""
    settings, bench, view = run.settings, run.bench, run.view
    with view.phase("Final choice on the holdout") as progress:
        best, holdout = choose_on_holdout(bench, settings, progress)
    if not holdout:
        view.warn("no candidate could be measured on the holdout; the best of the search is taken")
    best = best or best_of(closed_generations(bench))
    found = bench.candidate(best).profile
    rows, texts, differences = table(run, found)
    records = read_trace(run.directory.trace)
    candidates = bench.memory.recall(Candidate, run=bench.run)
    made = yields(records, candidates, bench.fidelity[0], bench.memory.recall(Generation, run=bench.run))
    if ARMS[settings.arm].asks_brain:
        prompts = PromptSet(settings.prompts_of_arm, run.directory.prompts)
        asked = run.prepared.loaded.name if settings.brain in OWN else Path(settings.brain).name  # of a folder its own
        reader = settings.brain_model or asked
        bench.memory.record(prompt_use(bench.run, prompts, settings.prompts, reader, records, candidates, made))
    return Outcome(
        candidate=best,
        attention=list(found.attention),
        mlp=list(found.mlp),
        dense={part: bench.budget.space.units(part) for part in PARTS},
        sparsity=bench.budget.space.sparsity(found),
        stop=state.stop,
        rows=rows,
        differences=differences,
        holdout=holdout,
        measured_on=(
            f"{text_label(settings.reporting_texts[0])} (reporting part), {settings.reporting_tokens} tokens in "
            f"sequences of {settings.sequence_length}"
        ),
        latency_setting=latency_setting(bench, bench.engine) if settings.benchmarks or settings.in_time else None,
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
            **bench.walks[FITNESS].parallelism,
            **{f"brain_{name}": value for name, value in brain_totals(records).items()},
            **brain_faults(records),
        },
        yields=made,
        choices=choices(records, candidates, bench.fidelity[0]),
        warnings=list(dict.fromkeys([*bench.elastic.warnings, *without_graphs(bench), *records.gaps()])),
        texts=texts,
        told=notes_read(records),
        speed=speed_facts(run.prepared, settings, found, timed_already(bench)),
        served=served(run, found, rows),
    )


def refit(run: Run, outcome: Outcome, *, keep: bool = True) -> tuple[Outcome, Recalibrated | None]:
    """The result recalibrated, and the weights for it; None where the search's are the result.

    Weights are made only where they are still to be judged, or written: what the outcome knows is not found out again.
    """
    if outcome.recalibration is not None and outcome.result == FOUND:
        return outcome, None
    refitted = recalibrated(run, run.bench.candidate(outcome.candidate).profile, keep=keep)
    if refitted is not None and outcome.recalibration is None:
        outcome = outcome.model_copy(
            update={
                "rows": refitted.beside(outcome.rows),
                "texts": [*outcome.texts, *refitted.by_text()],
                "recalibration": refitted.facts,
                "warnings": list(dict.fromkeys([*outcome.warnings, *refitted.elastic.warnings])),
                "spent": {**outcome.spent, **memory_use(run.bench)},
            }
        )
    return outcome, refitted


def memory_use(bench: Workbench) -> dict[str, float]:
    """Bytes of the weights, the most memory this process has used, here and on a GPU, and what it read of layers."""
    scale = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kilobytes elsewhere
    used = {
        "weight_bytes": float(
            sum(weight.numel() * weight.element_size() for weight in bench.elastic.model.parameters())
        ),
        "peak_resident_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale),
    }
    if bench.elastic.device.type == "cuda":
        used["peak_gpu_bytes"] = float(torch.cuda.max_memory_allocated(bench.elastic.device))
    if isinstance(store := bench.elastic.store, StreamedLayers):
        used |= {"layer_passes": store.passes, "layer_bytes_read": float(store.bytes_read)}
    return used


def table(run: Run, found: Profile) -> tuple[list[Row], list[TextRow], list[Difference]]:
    """The figures of `found` beside the dense model and the baselines: on the main reporting text, and on each."""
    settings, bench, view = run.settings, run.bench, run.view
    others = baselines(bench)
    models = {**others, FOUND: found}
    sequences = range(settings.sequences(settings.reporting_tokens))
    by_text = {}
    for name, text in bench.reporting.items():
        with view.phase(f"Reporting text {name}") as progress:
            measure(replace(bench, progress=progress), list(models.values()), sequences, FINISH_STEP, text)
        by_text[name] = [_dense_row(bench, text), *(row_of(bench, model, own, text) for model, own in models.items())]
    rows = next(iter(by_text.values()))
    texts = [TextRow.of(name, row) for name, own in by_text.items() for row in own]
    if settings.benchmarks or settings.in_time:
        with view.phase("Latency"):
            rows = with_latency(bench, rows, {name: models[name] for name in (UNIFORM, FOUND)}, bench.engine)
    compared = [difference(bench, found, other, name, bench.main_text) for name, other in others.items()]
    return rows, texts, [one for one in compared if one is not None]


def baselines(bench: Workbench) -> dict[str, Profile]:
    """The profiles that every result stands beside: uniform, rules of thumb, and the probes' where the run began there.

    Of those that are tried in several forms it is the best by fitness. A form that the run has not measured is
    measured at the first fidelity, and not charged: nothing of the search depends on it.
    """
    began_with: dict[str, list[Profile]] = {}
    for row in bench.memory.recall(Candidate, run=bench.run, step=0):
        if row.proposed_by == "seed":
            began_with.setdefault(closed_form_of(row), []).append(row.profile)
    rules: tuple[ClosedForm, ...] = (UNIFORM, "uniform-mlp", "ends")
    forms_of: dict[str, list[Profile]] = {
        rule: began_with.get(rule) or list(closed_form_profiles(bench, rule)) for rule in rules
    }
    forms_of[CLOSED_FORM] = began_with.get(CLOSED_FORM, [])
    found: dict[str, Profile] = {}
    for name, forms in forms_of.items():
        if len(forms) > 1:
            measure(bench, forms, range(bench.fidelity[0] // bench.sequence_length), FINISH_STEP)
        if forms and (best := _best(bench, forms)) not in found.values():  # of layers of one width most are the same
            found[name] = best
    return found


def _best(bench: Workbench, profiles: Sequence[Profile]) -> Profile:
    """The profile of least fitness among those measured on most tokens; of unmeasured ones the first."""
    for tokens in reversed(bench.fidelity):
        scores = {one: bench.fitness(one, tokens) for one in profiles}
        known = {one: score.kl for one, score in scores.items() if score is not None and score.kl is not None}
        if known:
            return min(known, key=lambda one: known[one])
    return profiles[0]


def served(run: Run, found: Profile, rows: Sequence[Row]) -> Served | None:
    """The rows in the engine that such machines serve models with, where it is installed; a failure is said."""
    bench, engine = run.bench, run.bench.served
    if engine is None:
        return None
    setting = latency_setting(bench, engine)
    try:
        with run.view.phase(f"Latency in {engine.name}"):
            timed = with_latency(bench, rows, {UNIFORM: uniform(bench.budget), FOUND: found}, engine)
    except SelfPrunerError as error:
        return Served(setting=setting, failure=str(error))
    return Served(setting=setting, rows=[row for row in timed if row.name in ("dense", UNIFORM, FOUND)])


def with_latency(
    bench: Workbench, rows: Sequence[Row], profiles: dict[str, Profile], engine: LatencyEngine
) -> list[Row]:
    """The rows with milliseconds in `engine`; the dense model's are those measured beside the found profile."""
    found = timed_all(bench, list(profiles.values()), FINISH_STEP, engine)
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


def export_and_verify(run: Run, outcome: Outcome, folder: Path, *, overwrite: bool = True, other: str = "") -> Outcome:
    """Write the checkpoint, load it in a new process, compare its logits; `other` names one that was not found."""
    bench = run.bench
    with run.view.phase("Export and verification", unit="bytes") as progress:
        verified = publish(
            bench.elastic,
            Profile(tuple(outcome.attention), tuple(outcome.mlp)),
            run.prepared.loaded.tokenizer,
            folder,
            card_facts(run.prepared, run.settings, outcome, run.directory, other),
            bench.walks[bench.main_text].input_ids[:VERIFIED_SEQUENCES, :VERIFIED_TOKENS],
            serving=run.settings.target,
            replace=overwrite,
            trusted=run.settings.trust_remote_code,
            progress=progress,
        )
    return outcome.model_copy(update={"verified": verified, "spent": {**outcome.spent, **memory_use(bench)}})


def export_candidate(run: Run, outcome: Outcome, candidate: str | None, folder: Path) -> Outcome:
    """Measure any candidate of a finished run like the found one and write it to `folder`, which must not exist."""
    name = candidate or outcome.candidate
    profile = run.bench.candidate(name).profile
    rows, texts, differences = table(run, profile)
    chosen = outcome.model_copy(
        update={
            "candidate": name,
            "attention": list(profile.attention),
            "mlp": list(profile.mlp),
            "sparsity": run.bench.budget.space.sparsity(profile),
            "rows": rows,
            "texts": texts,
            "differences": differences,
            "recalibration": None,
            "speed": speed_facts(run.prepared, run.settings, profile, timed_already(run.bench)),
            "served": served(run, profile, rows),
            "tasks": outcome.tasks if name == outcome.candidate else None,
        }
    )
    other = "" if name == outcome.candidate else name
    chosen, refitted = refit(run, chosen, keep=False)
    if refitted:
        run.view.line(recalibration_sentence(chosen))
    return export_and_verify(with_weights(run, refitted), chosen, folder, overwrite=False, other=other)


def with_weights(run: Run, refitted: Recalibrated | None) -> Run:
    """The run with the weights that are the result."""
    if refitted is None:
        return run
    bench = replace(run.bench, elastic=refitted.elastic)
    return replace(run, prepared=replace(run.prepared, bench=bench))


def _dense_row(bench: Workbench, text: str) -> Row:
    nll = bench.walks[text].targets.nll
    space = bench.budget.space
    return Row(name="dense", params=space.dense_params, kl=0.0, perplexity=perplexity(nll))
