"""After the search: choose on unseen text, measure on reporting text, time, export, verify, report.

Measurements go through the memory like all others, so a run that is killed here goes on where it was; the checkpoint is
written aside and renamed. The final choice is made on tokens of the fitness text that the search never saw, because a
search fits the ones it sees.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from agent.atomic import atomic_write
from agent.facts import eligible
from agent.founders import CLOSED_FORM, UNIFORM
from agent.outcome import Difference, Outcome, Row, brain_totals, difference, row_of, yields
from agent.preparation import Prepared
from agent.run_directory import RunDirectory, RunDirectoryError
from agent.settings import Settings
from agent.state import SearchState
from agent.trace import read_trace
from agent.view import View
from memory.errors import SelfPrunerError
from memory.profile import PARTS, Profile
from memory.records import Candidate
from tools.evaluation.fitness import mean, perplexity
from tools.evaluation.tool import measure
from tools.export.card import CardFacts, CardRow
from tools.export.publish import publish
from tools.latency.tool import latency_setting, timed
from tools.models.aliases import ALIASES, BUNDLED
from tools.workbench import FITNESS, Progress, Workbench


class NotFinishedError(SelfPrunerError):
    """A result was asked of a run that has none yet."""


FINISH_STEP = -2  # measurements made after the last turn
PLACES = ("runs", "memory", "cache")  # settings that say where things are kept: of no interest to anybody else
HUB_IDS = {**ALIASES, BUNDLED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
VERIFIED_SEQUENCES, VERIFIED_TOKENS = 2, 64  # text on which the exported logits are compared
RESULT = "result.json"


def finish(prepared: Prepared, settings: Settings, state: SearchState, run: RunDirectory, view: View) -> Outcome:
    """Everything that follows the search; returns the result, which is also in `result.json`."""
    bench = prepared.bench
    with view.phase("Final choice on unseen text") as progress:
        unseen = compare_unseen(bench, settings, progress)
    if not unseen:
        view.warn("no candidate could be measured on unseen text; the best of the search is taken")
    best = min(unseen, key=lambda name: (unseen[name], name)) if unseen else state["best"]
    found = bench.candidate(best).profile
    rows, differences = table(bench, settings, found, view)
    records = read_trace(run.trace)
    outcome = Outcome(
        candidate=best,
        attention=list(found.attention),
        mlp=list(found.mlp),
        dense={part: bench.budget.space.units(part) for part in PARTS},
        sparsity=bench.budget.space.sparsity(found),
        stop=state["stop"],
        rows=rows,
        differences=differences,
        unseen=unseen,
        measured_on=(
            f"{settings.reporting_text} (reporting part), {settings.reporting_tokens} tokens in sequences of "
            f"{settings.sequence_length}"
        ),
        latency_setting=latency_setting(bench) if settings.benchmarks else None,
        spent={
            **{
                name: float(state[name])
                for name in ("evaluations", "tokens", "generation", "failed_turns", "fallbacks", "illegal", "surplus")
            },
            "search_minutes": round(state["seconds"] / 60, 2),
            **memory_use(bench),
            **{f"brain_{name}": value for name, value in brain_totals(records).items()},
        },
        yields=yields(records, bench.memory.recall(Candidate, run=bench.run), bench.fidelity[0]),
        warnings=bench.elastic.warnings,
    )
    outcome = export_and_verify(prepared, settings, outcome, run, run.model, view)
    atomic_write(run.path / RESULT, outcome.model_dump_json(indent=2) + "\n")
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


def compare_unseen(bench: Workbench, settings: Settings, progress: Progress | None = None) -> dict[str, float]:
    """Fitness of the best few candidates and the closed forms on tokens that the search never saw, by id."""
    rows = {row.id: row for row in bench.memory.recall(Candidate, run=bench.run)}
    ranked = eligible(bench, list(rows))
    few = ranked[: settings.final_candidates]
    few += [name for name in ranked[settings.final_candidates :] if rows[name].proposed_by == "seed"]
    first = settings.sequences(settings.fidelity[-1])
    sequences = range(first, first + settings.sequences(settings.final_tokens))
    profiles = {name: rows[name].profile for name in few}
    measure(replace(bench, progress=progress), list(profiles.values()), sequences, FINISH_STEP)
    unseen = {}
    for name, profile in profiles.items():
        scores = bench.scores(profile, FITNESS)
        values = [scores[index].kl for index in sequences if index in scores]
        known = [value for value in values if value is not None]
        if len(known) == len(sequences):
            unseen[name] = mean(known)
    return unseen


def table(bench: Workbench, settings: Settings, found: Profile, view: View) -> tuple[list[Row], list[Difference]]:
    """The figures of `found` beside the dense model and the closed forms, on the reporting text."""
    rivals = {row.detail: row.profile for row in bench.memory.recall(Candidate, run=bench.run, proposed_by="seed")}
    rivals.setdefault(CLOSED_FORM, rivals[UNIFORM])  # where the two closed forms are one profile
    with view.phase("Reporting text") as progress:
        profiles = [found, rivals[UNIFORM], rivals[CLOSED_FORM]]
        sequences = range(settings.sequences(settings.reporting_tokens))
        measure(replace(bench, progress=progress), profiles, sequences, FINISH_STEP, bench.reporting)
    rows = [
        _dense_row(bench),
        row_of(bench, "uniform", rivals[UNIFORM], bench.reporting),
        row_of(bench, "closed form", rivals[CLOSED_FORM], bench.reporting),
        row_of(bench, "found", found, bench.reporting),
    ]
    if settings.benchmarks:
        with view.phase("Latency"):
            rows = with_latency(bench, rows, {"uniform": rivals[UNIFORM], "found": found})
    compared = [difference(bench, found, rivals[name], name, bench.reporting) for name in (UNIFORM, CLOSED_FORM)]
    return rows, [one for one in compared if one is not None]


def with_latency(bench: Workbench, rows: Sequence[Row], profiles: dict[str, Profile]) -> list[Row]:
    """The rows with milliseconds; the dense model's are those measured beside the found profile."""
    values = {name: timed(bench, profile, FINISH_STEP).values for name, profile in profiles.items()}
    dense = {name.removeprefix("dense_"): value for name, value in values["found"].items() if name.startswith("dense_")}
    values["dense"] = {**dense, "speedup": 1.0}
    columns = ("prefill_ms", "decode_ms", "tokens_per_second", "speedup")
    return [
        row.model_copy(update={column: values[row.name].get(column) for column in columns})
        if row.name in values
        else row
        for row in rows
    ]


def export_and_verify(
    prepared: Prepared,
    settings: Settings,
    outcome: Outcome,
    run: RunDirectory,
    folder: Path,
    view: View,
    *,
    overwrite: bool = True,
) -> Outcome:
    """Write the checkpoint, load it in a new process, compare its logits; raises where they differ."""
    bench, loaded = prepared.bench, prepared.loaded
    with view.phase("Export and verification", unit="bytes") as progress:
        _, verified = publish(
            bench.elastic,
            Profile(tuple(outcome.attention), tuple(outcome.mlp)),
            loaded.tokenizer,
            folder,
            card_facts(prepared, settings, outcome, run),
            bench.walks[bench.reporting].input_ids[:VERIFIED_SEQUENCES, :VERIFIED_TOKENS],
            replace=overwrite,
            progress=progress,
        )
    return outcome.model_copy(update={"verified": verified.max_abs})


def export_candidate(
    prepared: Prepared, settings: Settings, run: RunDirectory, candidate: str | None, folder: Path, view: View
) -> Outcome:
    """Measure any candidate of a finished run like the found one and write it to `folder`, which must not exist."""
    bench = prepared.bench
    outcome = read_outcome(run.path)
    if outcome is None:
        raise NotFinishedError(f"the run {run.path} has no result yet: python main.py resume {run.path}")
    profile = bench.candidate(candidate or outcome.candidate).profile
    rows, differences = table(bench, settings, profile, view)
    chosen = outcome.model_copy(
        update={
            "candidate": candidate or outcome.candidate,
            "attention": list(profile.attention),
            "mlp": list(profile.mlp),
            "sparsity": bench.budget.space.sparsity(profile),
            "rows": rows,
            "differences": differences,
        }
    )
    return export_and_verify(prepared, settings, chosen, run, folder, view, overwrite=False)


def card_facts(prepared: Prepared, settings: Settings, outcome: Outcome, run: RunDirectory) -> CardFacts:
    """What the model card states."""
    rows = [row for row in outcome.rows if row.name in ("dense", "uniform", "found")]
    environment = run.environment
    return CardFacts(
        base_model=HUB_IDS.get(prepared.loaded.name, settings.model),
        family=prepared.loaded.family.model_type,
        sparsity=prepared.bench.budget.sparsity,
        rows=tuple(
            CardRow(
                name=row.name,  # type: ignore[arg-type]
                parameters=row.params,
                kl=row.kl,
                perplexity=row.perplexity,
                prefill_ms=row.prefill_ms,
                decode_ms=row.decode_ms,
                tokens_per_second=row.tokens_per_second,
            )
            for row in rows
        ),
        measured_on=outcome.measured_on,
        command=command_line(settings),
        brain="the target model" if settings.brain == "self" else f"the scripted control {settings.brain!r}",
        latency_setting=outcome.latency_setting,
        calibration=f"{settings.calibration}, tokens {prepared.texts['calibration']}",
        compensation=settings.compensation,
        settings={name: value for name, value in settings.to_toml().items() if name not in PLACES},
        versions={name: str(version) for name, version in environment.get("versions", {}).items() if version},
        fingerprint=prepared.loaded.fingerprint,
        license="apache-2.0" if prepared.loaded.name == "smollm2-135m" else None,
    )


def command_line(settings: Settings) -> str:
    """A command that makes the same run: every setting that is not the default, but where things are kept."""
    default = Settings()
    words = ["python main.py"]
    for name, value in settings.to_toml().items():
        if name in PLACES or value == default.to_toml().get(name):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{option} {json.dumps(text) if ' ' in text else text}")
    return " ".join(words)


def _dense_row(bench: Workbench) -> Row:
    nll = bench.walks[bench.reporting].targets.nll
    space = bench.budget.space
    return Row(name="dense", params=space.params(space.dense()), kl=0.0, perplexity=perplexity(nll))


def read_outcome(run: Path) -> Outcome | None:
    """The result of a finished run, or None."""
    path = run / RESULT
    if not path.is_file():
        return None
    try:
        return Outcome.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
