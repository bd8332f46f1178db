"""The report: one page without scripts or outside files, made from `result.json` and the trace alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from self_pruner.agent.result.checkpoint_figures import FILE as FIGURES
from self_pruner.agent.result.checkpoint_figures import Evaluation, read_evaluation
from self_pruner.agent.result.outcome import Outcome, Row, Served, brain_sentence, recalibration_sentence, summary
from self_pruner.agent.result.result_file import still_to_do
from self_pruner.agent.result.same_again import same_again
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Judge, Think, TraceRecord, TraceRecords, read_trace
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.tools.export.card import serve_command
from self_pruner.tools.text.quantities import size
from self_pruner.tools.text.redaction import redact

TEMPLATES = Path(__file__).parent
CURVE = (640.0, 220.0)  # pixels
MARGIN = 46.0
LATENCIES = ("prefill ms", "decode ms", "tokens/s", "speed-up")  # headings


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    for made in (final_table, served_table, by_text, summary, brain_sentence, recalibration_sentence):
        environment.globals[made.__name__] = made  # what the page says of an outcome
    return environment.get_template("report.html.j2")


def write_report(run: RunDirectory, settings: Settings, outcome: Outcome | None) -> list[str]:
    """Write `report.html`; of an unfinished run it holds what there is. Returns what is missing, in sentences."""
    records = read_trace(run.trace) if run.trace.is_file() else TraceRecords()
    checkpoint = read_evaluation(run.model) if outcome else None
    missing = gaps(run, records, checkpoint)
    if outcome is not None and run.status != "finished" and (left := still_to_do(settings, outcome)):
        missing.append(f"{', '.join(left)} still to do: python main.py resume {run.path}")
    page = _template().render(
        run=run.name,
        settings=settings.to_toml(),
        environment=surroundings(run),
        again=same_again(settings, run.environment),
        outcome=outcome,
        checkpoint=checkpoint,
        curve=curve(records),
        notes=notes(records),
        faults=[*missing, *faults(records)],
    )
    atomic_write(run.report, redact(page))
    return missing


def gaps(run: RunDirectory, records: TraceRecords, checkpoint: Evaluation | None) -> list[str]:
    """What a page of this run has to do without because a file is missing or damaged, a sentence each."""
    found = records.gaps()
    if not run.trace.is_file():
        found.append("trace.jsonl is missing: what the brain said, and what came of it, is left out")
    if run.fault:
        found.append(f"{run.fault}: versions and device are left out")
    if checkpoint is None and (run.model / FIGURES).is_file():
        found.append(f"{FIGURES} of the checkpoint is damaged and was left out")
    return found


def surroundings(run: RunDirectory) -> dict[str, Any]:
    """What a page says of where the run was made, as far as it is known."""
    versions = run.environment.get("versions")
    known = versions if isinstance(versions, dict) else {}
    return {"versions": known, **{name: run.environment.get(name, "unknown") for name in ("python", "device")}}


def curve(records: Sequence[TraceRecord]) -> dict[str, Any] | None:
    """Best fitness so far against evaluated tokens, as the points of an SVG line; None where there are under two."""
    judged = [record for record in records if isinstance(record, Judge) and record.fitness is not None]
    points = [(record.spent.get("tokens", 0.0), record.fitness or 0.0) for record in judged]
    if len({x for x, _ in points}) < 2:
        return None
    (x0, x1), (y0, y1) = _span([x for x, _ in points]), _span([y for _, y in points])
    width, height = CURVE
    placed: list[str] = []
    for index, (x, y) in enumerate(points):
        left = MARGIN + (x - x0) / (x1 - x0) * (width - 2 * MARGIN)
        top = 12 + (y1 - y) / (y1 - y0) * (height - 48)
        if index:  # a step: the best stays until a better one is known
            placed.append(f"{left:.1f},{placed[-1].partition(',')[2]}")
        placed.append(f"{left:.1f},{top:.1f}")
    return {"points": " ".join(placed), "x0": x0, "x1": x1, "y0": y0, "y1": y1, "width": width, "height": height}


def notes(records: Sequence[TraceRecord]) -> list[dict[str, Any]]:
    """The brain's notes to its future self, one a generation."""
    return [
        {"generation": record.result.get("generation"), "note": record.result.get("note")}
        for record in records
        if isinstance(record, Act) and record.tool == "record_population" and isinstance(record.result, dict)
    ]


def faults(records: Sequence[TraceRecord]) -> list[str]:
    """Failed turns, stood-in turns and refused calls, a sentence each."""
    found = []
    for record in records:
        if isinstance(record, Think) and record.error:
            found.append(f"step {record.step}: the brain failed: {record.error}")
        elif isinstance(record, Think) and record.fallback:
            found.append(f"step {record.step}: the tool's random operator stood in for the brain")
        elif isinstance(record, Act) and record.error:
            found.append(f"step {record.step}: {record.tool}: {record.error}")
    return found


def show_outcome(outcome: Outcome, run: RunDirectory, view: View) -> None:
    """The last screen: the table, what it means, where everything is, what to do next."""
    view.line("")
    view.table(f"{run.name}: {outcome.sparsity:.1%} of the decoder blocks removed", *final_table(outcome))
    view.line(f"Measured on {outcome.measured_on}.", "dim")
    if outcome.latency_setting:
        view.line(f"Latency: {outcome.latency_setting}.", "dim")
    view.line(summary(outcome))
    if outcome.recalibration is not None:
        view.line(recalibration_sentence(outcome))
    if outcome.speed is not None:
        view.line(outcome.speed.sentence())
    show_served(outcome.served, view)
    view.line(brain_sentence(outcome.yields))
    for line in account(outcome):
        view.line(line)
    if outcome.several_texts():
        view.table("On every reporting text", *by_text(outcome))
    show_tasks(outcome, view)
    show_checkpoint(read_evaluation(run.model), view)
    for sentence in outcome.warnings:
        view.warn(sentence)
    view.line("")
    if outcome.verified is not None:
        view.line(
            f"Checkpoint  {run.model}  (reloaded in a new process, largest logit difference {outcome.verified:.1e})"
        )
    view.line(f"Report      {run.report}")
    view.line(f"Trace       {run.trace}")
    view.line(f"Next: python main.py trace {run.path}")
    view.line(f"      python main.py report {run.path}")
    if outcome.verified is None:
        view.line(f"      python main.py export {run.path} --output FOLDER")
        return
    serving = make_settings(run.settings)
    trust = "" if serving.target == "uniform" else ", trust_remote_code=True"
    view.line(f"      python main.py evaluate {run.path}  # tasks and perplexity of the checkpoint")
    view.line(f"      AutoModelForCausalLM.from_pretrained({str(run.model)!r}{trust})  # in transformers")
    if serving.target != "transformers":
        command = serve_command(serving.target, serving.tensor_parallel)
        view.line(f"      cd {run.model} && {command}  # in vLLM")


def final_table(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the final table."""
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            f"{row.params:,}",
            _figure(row.kl, 4),
            _figure(row.perplexity, 2),
            *_latencies(row),
        )
        for row in outcome.rows
    ]
    return ("", "parameters", "KL", "perplexity", *LATENCIES), rows


def _latencies(row: Row) -> tuple[str, ...]:
    return (
        _figure(row.prefill_ms, 1),
        _figure(row.decode_ms, 2),
        _figure(row.tokens_per_second, 1),
        _figure(row.speedup, 2),
    )


def served_table(served: Served) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the latencies in the engine that serves models."""
    return ("", *LATENCIES), [(row.name, *_latencies(row)) for row in served.rows]


def show_served(served: Served | None, view: View) -> None:
    """Latencies in the engine that serves models, where they were measured."""
    if served is None:
        return
    if served.failure is not None:
        view.warn(served.sentence())
        return
    view.table("As it is served", *served_table(served))
    view.line(f"Latency: {served.setting}.", "dim")


def show_tasks(outcome: Outcome, view: View) -> None:
    """The zero-shot table, where there is one."""
    if outcome.tasks is not None:
        view.table("Zero-shot tasks", *outcome.tasks.cells())
        view.line(outcome.tasks.measured_on, "dim")


def show_checkpoint(evaluation: Evaluation | None, view: View) -> None:
    """What was measured of the checkpoint on the disk, where it was."""
    if evaluation is not None:
        view.table("The checkpoint on the disk", *evaluation.cells())
        view.line(evaluation.measured_on, "dim")


def by_text(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table of KL and perplexity by text."""
    names = list(dict.fromkeys(row.name for row in outcome.texts))
    rows = [
        (text, *(f"{_figure(row.kl, 4)} / {_figure(row.perplexity, 2)}" for row in outcome.texts if row.text == text))
        for text in dict.fromkeys(row.text for row in outcome.texts)
    ]
    return ("KL / perplexity", *names), rows


def account(outcome: Outcome) -> list[str]:
    """What the run cost and who proposed, in a few lines."""
    spent = outcome.spent
    made: Counter[str] = Counter()
    for one in outcome.yields:
        made[one.proposed_by] += one.made
    total = max(1, sum(made.values()))
    share = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in made.items())
    return [
        f"Stopped because {outcome.stop}: {spent['evaluations']:.0f} candidates evaluated on {spent['tokens']:,.0f} "
        f"tokens in {spent['generation']:.0f} generations, {spent['search_minutes']:.1f} minutes of search.",
        f"Proposed by: {share}. Brain: {spent['brain_turns']:.0f} turns, {spent['brain_output_tokens']:,.0f} tokens "
        f"written in {spent['brain_decode_steps']:,.0f} decode steps, {spent['brain_seconds']:.0f} s.",
        f"Failed turns {spent['failed_turns']:.0f}, illegal replies {spent['illegal']:.0f}, turns the random operator "
        f"stood in for {spent['fallbacks']:.0f}.",
        f"{spent.get('factorisations', 0):.0f} factorisations of {spent.get('factored_places', 0):.0f} places "
        "since the run was last started.",
        *([workers_sentence(spent)] if "workers" in spent else []),
        f"Memory: weights {size(spent['weight_bytes'])}, one copy for brain and candidates; peak "
        f"{size(spent.get('peak_gpu_bytes') or spent['peak_resident_bytes'])}"
        f"{' on the GPU' if 'peak_gpu_bytes' in spent else ' resident'}.",
    ]


def workers_sentence(spent: Mapping[str, float]) -> str:
    """How many workers measured, and how many were lost on the way."""
    return f"Measured by {spent['workers']:.0f} workers, of which {spent['workers_replaced']:.0f} were replaced."


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (0.95 * low, 1.05 * high)
