"""The trace of a run in the form of other tools: OTLP/JSON for collectors, JSON lines, or a table with a row a step."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.report.telemetry.listeners import check_spans
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Step, TraceRecord, by_step, read_trace
from self_pruner.agent.view import Screen, View
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from self_pruner.tools.text.printable import printable

SPENT = ("evaluations", "tokens", "brain_tokens", "minutes")
COLUMNS = (
    *("step", "generation", "at", "tool", "calls", "errors", "replies", "illegal", "fallback"),
    *("input_tokens", "cached_tokens", "output_tokens", "brain_seconds", "tool_seconds", "measured_tokens"),
    *(f"spent_{name}" for name in SPENT),
    *("best", "fitness", "stop"),
)
IDS = ("traceId", "spanId", "parentSpanId")


def write_trace(run: RunDirectory, form: str | None, output: Path | None) -> None:
    """Write the trace of `run` in a form of `FORMS` to a new file, or to standard output; what is missing is said.

    Raises:
        SettingsError: no or an unknown form, a file that is there, or the packages that make spans are missing.
        RunDirectoryError: there is no trace, or a file of the run cannot be read.
        WriteError: the file cannot be written.
    """
    if form not in FORMS:
        said = "--output is for --format" if form is None else f"--format: got {form!r}"
        raise SettingsError(f"{said}: give --format otlp, jsonl or csv")
    if output is not None and (output.exists() or output.is_symlink()):
        raise SettingsError(f"--output {output} is there already")
    if form == "otlp":
        check_spans("--format otlp")
    records = read_trace(run.trace)
    text = FORMS[form](run, records)
    for sentence in records.gaps():
        View(Screen(stderr=True, highlight=False, soft_wrap=True)).warn(sentence)
    if output is None:
        sys.stdout.write(text)
    else:
        atomic_write(output, text)


def as_otlp(run: RunDirectory, records: Sequence[TraceRecord]) -> str:
    """An ExportTraceServiceRequest in JSON, in one line, prompts and replies included."""
    from google.protobuf.json_format import MessageToDict  # not above: optional packages
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    from self_pruner.agent.report.telemetry.spans import RunSpans

    kept = InMemorySpanExporter()
    try:
        spans = RunSpans(run, SimpleSpanProcessor(kept), content=True, sampler=ALWAYS_ON)
        for step in by_step(records).values():
            spans.turn(step)
        spans.end()
        request = MessageToDict(encode_spans(kept.get_finished_spans()), use_integers_for_enums=True)
    except (ValueError, TypeError, OverflowError) as error:  # numbers that nobody but a forger writes
        raise RunDirectoryError(f"{run.path} holds what no span can: {str(error).partition(chr(10))[0]}") from error
    return json.dumps(_with_hex_ids(request)) + "\n"


def as_jsonl(run: RunDirectory, records: Sequence[TraceRecord]) -> str:
    """The records as they are kept, without damaged lines and what was superseded."""
    return "".join(json.dumps(record.model_dump(mode="json")) + "\n" for record in records)


def as_csv(run: RunDirectory, records: Sequence[TraceRecord]) -> str:
    """A row a step, figures mostly: no text of a model is in it."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_row(step) for step in by_step(records).values())
    return written.getvalue()


FORMS: dict[str, Callable[[RunDirectory, Sequence[TraceRecord]], str]] = {
    "otlp": as_otlp,
    "jsonl": as_jsonl,
    "csv": as_csv,
}


def _row(step: Step) -> dict[str, Any]:
    think, judge = step.think, step.judge
    last = [record for record in (think, *step.acts, judge) if record is not None][-1]
    row: dict[str, Any] = {
        "step": step.number,
        "at": last.at,
        "tool": _cell(step.acts[0].tool) if step.acts else None,
        "calls": len(step.acts),
        "errors": sum(act.error is not None for act in step.acts) + (think is not None and think.error is not None),
        "tool_seconds": round(sum(act.seconds for act in step.acts), 3),
        "measured_tokens": sum(act.tokens for act in step.acts),
    }
    if think is not None:
        row |= think.model_dump(
            include={"generation", "illegal", "fallback", "input_tokens", "cached_tokens", "output_tokens"}
        )
        row |= {"replies": len(think.replies), "brain_seconds": round(think.seconds, 3)}
    if judge is not None:
        row |= {"best": _cell(judge.best or ""), "fitness": judge.fitness, "stop": _cell(judge.stop or "")}
        row |= {f"spent_{name}": judge.spent.get(name) for name in SPENT}
    return row


def _cell(text: str) -> str:
    """A text that a spreadsheet takes for nothing else."""
    return "'" + printable(text) if text.startswith(("=", "+", "-", "@", "\t", "\r")) else printable(text)


def _with_hex_ids(value: Any) -> Any:
    """OTLP's JSON has ids in hex, where JSON of protobuf has bytes in base64."""
    if isinstance(value, dict):
        return {
            name: base64.b64decode(one).hex() if name in IDS and isinstance(one, str) else _with_hex_ids(one)
            for name, one in value.items()
        }
    return [_with_hex_ids(one) for one in value] if isinstance(value, list) else value
