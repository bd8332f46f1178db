"""Spans of a run, sent to a collector while it goes on: where to, and how, is said by the usual OTEL_ variables."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import DEFAULT_ENDPOINT, OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from self_pruner.agent.report.telemetry.spans import RunSpans
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import TraceRecord, by_step, read_trace
from self_pruner.agent.view import View
from self_pruner.tools.text.redaction import redact

END_SECONDS = 5.0  # that a run waits at its end for spans to be sent


class Collector:
    """Sends the spans of a run."""

    def __init__(self, run: RunDirectory, view: View, *, content: bool) -> None:
        """Begin with what the trace holds of the turn in hand, where the run is resumed within one."""
        self.exporter = _Told(OTLPSpanExporter(), view)
        self.spans = RunSpans(run, BatchSpanProcessor(self.exporter), content=content)
        steps = list(by_step(read_trace(run.trace)).values()) if run.trace.is_file() else []
        self.spans.best = next((step.judge for step in reversed(steps) if step.judge), None)
        if steps and steps[-1].judge is None:
            for record in (steps[-1].think, *steps[-1].acts):
                if record is not None:
                    self.spans.see(record)

    def see(self, record: TraceRecord) -> None:
        """Take in one record."""
        self.spans.see(record)

    def end(self) -> None:
        """Send what is left, for a bounded time."""
        self.spans.end(time.time())
        sending = Thread(target=self.spans.provider.shutdown, daemon=True)
        sending.start()
        sending.join(END_SECONDS)
        if sending.is_alive():
            self.exporter.say(f"the last spans did not go out within {END_SECONDS:.0f} s")
            self.exporter.shutdown()


class _Told(SpanExporter):
    """An exporter whose first failure is said, and no other."""

    def __init__(self, exporter: SpanExporter, view: View) -> None:
        self.exporter, self.view, self.said = exporter, view, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self.exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.say("nobody takes them there")
        return result

    def say(self, reason: str) -> None:
        """Say once that spans are lost."""
        if not self.said:
            self.said = True
            self.view.warn(f"spans for {endpoint()} are lost: {reason}; the run goes on, and its trace has all of them")

    def shutdown(self) -> None:
        self.exporter.shutdown()


def endpoint() -> str:
    """Where spans are sent, without a password in it."""
    names = (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)
    return redact(next((value for name in names if (value := os.environ.get(name))), DEFAULT_ENDPOINT))
