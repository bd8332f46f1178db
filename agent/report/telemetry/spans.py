"""A run as a tree of OpenTelemetry spans with OpenInference attributes: run, turns, and in them LLM and tool calls.

They follow from the trace alone, while it is written or afterwards. Their ids follow from the run and the step, so a
run that is resumed goes on with its trace, and a turn that is told twice is the same one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from openinference.semconv.resource import ResourceAttributes
from openinference.semconv.trace import (
    MessageAttributes,
    OpenInferenceMimeTypeValues,
    SpanAttributes,
    ToolCallAttributes,
)
from openinference.semconv.trace import OpenInferenceSpanKindValues as Kind
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.environment import version_of
from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER, RunDirectory
from self_pruner.agent.run_files.trace import Act, Judge, Step, Think, TraceRecord, by_step
from self_pruner.agent.settings.panels import OWN
from self_pruner.agent.settings.stated import with_defaults
from self_pruner.tools.text.redaction import redact, without_keys

OURS = "self_pruner"  # the prefix of attributes that OpenInference has no name for
FREE_TEXT = ("note",)  # arguments that a brain writes in words
UNSAID = "the brain failed; the trace of the run says how"  # what it wrote may be quoted in the error
NANOSECONDS = 1_000_000_000


class _Ids(IdGenerator):
    """Gives every span the id that follows from its place."""

    def __init__(self, run: str) -> None:
        self.run, self.place = run, ""

    def generate_trace_id(self) -> int:
        return int.from_bytes(sha256(self.run.encode()).digest()[:16])

    def generate_span_id(self) -> int:
        return int.from_bytes(sha256(f"{self.run}/{self.place}".encode()).digest()[:8])


class RunSpans:
    """Makes the spans of one run from its records, and hands them to a processor as they end."""

    def __init__(
        self, run: RunDirectory, processor: SpanProcessor, *, content: bool, sampler: Sampler | None = None
    ) -> None:
        """Begin the span of the run.

        Args:
            run: its directory.
            processor: what takes the spans.
            content: whether prompts, replies and plans are in them.
            sampler: which spans are kept; None for what OTEL_TRACES_SAMPLER says.
        """
        logger = logging.getLogger("opentelemetry")  # what it says again and again is said once, by us
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self.run, self.content = run, content
        self.settings = without_keys(with_defaults(run.settings))
        self.ids = _Ids(run.id)
        self.provider = TracerProvider(
            id_generator=self.ids, resource=_resource(), sampler=sampler, shutdown_on_exit=False
        )
        self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("self-pruner", version_of("self-pruner"))
        self.clock = _began(run)
        self.best: Judge | None = None
        asked = {**_ours({"run": run.id}), **_input(self.settings)}
        self.root = self._start("run", "run", Context(), _nanoseconds(self.clock), Kind.AGENT, asked)
        self.inside = set_span_in_context(self.root)
        self.open: dict[tuple[str, int], TraceRecord] = {}  # records of the turn in hand

    def see(self, record: TraceRecord) -> None:
        """Take in one record; its turn is told once it was judged."""
        if any(one.step != record.step for one in self.open.values()):
            self.open.clear()
        self.open[record.kind, getattr(record, "call", 0)] = record
        if isinstance(record, Judge):
            self.turn(*by_step(list(self.open.values())).values())
            self.open.clear()

    def turn(self, step: Step) -> None:
        """The spans of one step, its calls first."""
        records = [step.think, *step.acts, step.judge]
        times = {index: self._when(record) for index, record in enumerate(records) if record is not None}
        start, end = min(begin for begin, _ in times.values()), max(end for _, end in times.values())
        turn = self._start("turn", f"{step.number}", self.inside, start, Kind.CHAIN, self._of_turn(step))
        inside = set_span_in_context(turn)
        for index, record in enumerate(records):
            if isinstance(record, Think) and (record.replies or record.error):
                self._llm(record, inside, times[index])
            elif isinstance(record, Act):
                self._tool(record, inside, times[index])
        turn.end(end)

    def end(self, now: float | None = None) -> None:
        """The spans of the result and the run.

        Args:
            now: seconds since 1970; None for the moment of the last record.
        """
        begin, end = _nanoseconds(self.clock), _nanoseconds(now or self.clock)
        status, reason = self.run.status, redact(self.run.reason)
        figures: dict[str, Any] = {"status": status, "reason": reason}
        if self.best is not None:
            figures |= {"best": self.best.best, "fitness": self.best.fitness}
        outcome = read_outcome(self.run.path)
        if outcome is not None:
            row = outcome.row(outcome.result).model_dump(exclude={"name"}, exclude_none=True)
            figures |= {"candidate": outcome.candidate, "sparsity": outcome.sparsity, **row}
            self._start("result", "result", self.inside, begin, Kind.CHAIN, _output(figures)).end(end)
        self.root.set_attributes({**_ours(figures), **_output(figures)})
        failed = status == "stopped" and reason != STOPPED_BY_USER
        self.root.set_status(Status(StatusCode.ERROR, reason) if failed else Status(StatusCode.OK))
        self.root.end(end)

    def _llm(self, record: Think, inside: Context, when: tuple[int, int]) -> None:
        attributes: dict[str, AttributeValue] = {
            SpanAttributes.LLM_MODEL_NAME: self.model,
            SpanAttributes.LLM_TOKEN_COUNT_PROMPT: record.input_tokens,
            SpanAttributes.LLM_TOKEN_COUNT_COMPLETION: record.output_tokens,
            SpanAttributes.LLM_TOKEN_COUNT_TOTAL: record.input_tokens + record.output_tokens,
            SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_READ: record.cached_tokens,
            SpanAttributes.LLM_INVOCATION_PARAMETERS: _json(
                {name: self.settings[name] for name in ("temperature", "top_p")}
            ),
            **_ours({"replies": len(record.replies), "illegal": record.illegal, "decode_steps": record.decode_steps}),
        }
        if self.content:
            attributes |= _messages(record)
        span = self._start("chat", f"{record.step}/think", inside, when[0], Kind.LLM, attributes)
        if record.error:
            span.set_status(Status(StatusCode.ERROR, record.error if self.content else UNSAID))
        span.end(when[1])

    def _tool(self, record: Act, inside: Context, when: tuple[int, int]) -> None:
        arguments, result = record.arguments, record.result
        if not self.content:
            arguments, result = _without_words(arguments), _without_words(result)
        attributes: dict[str, AttributeValue] = {
            SpanAttributes.TOOL_NAME: record.tool,
            **_input(arguments),
            **({} if result is None else _output(result)),
            **_ours({"tokens": record.tokens, "repair": record.repair}),
        }
        place = f"{record.step}/act/{record.call}"
        span = self._start(record.tool, place, inside, when[0], Kind.TOOL, attributes)
        if record.error:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(when[1])

    @property
    def model(self) -> str:
        """Name of what is asked as the brain."""
        brain = self.settings["brain"]
        return str((self.settings["brain_model"] or self.settings["model"]) if brain in OWN else Path(brain).name)

    def _start(
        self,
        name: str,
        place: str,
        inside: Context,
        start: int,
        kind: Kind,
        attributes: Mapping[str, AttributeValue],
    ) -> Span:
        """A span that begins at `start`, in nanoseconds; its id follows from `place`."""
        self.ids.place = place
        return self.tracer.start_span(
            name,
            context=inside,
            start_time=start,
            attributes={SpanAttributes.OPENINFERENCE_SPAN_KIND: kind.value, **attributes},
        )

    def _when(self, record: TraceRecord) -> tuple[int, int]:
        """When it began and ended; records of older runs say how long it took, and follow one another."""
        seconds = getattr(record, "seconds", 0.0)
        self.clock = record.at if record.at is not None else self.clock + seconds
        return _nanoseconds(self.clock - seconds), _nanoseconds(self.clock)

    def _of_turn(self, step: Step) -> dict[str, AttributeValue]:
        think, judge = step.think, step.judge
        facts: dict[str, Any] = {"step": step.number}
        if think is not None:
            facts |= {"generation": think.generation, "fallback": think.fallback}
            if self.content and think.plan is not None:
                facts["plan"] = _json(think.plan)
        said: dict[str, AttributeValue] = {}
        if judge is not None:
            self.best = judge
            said = _output(judge.model_dump(mode="json", include={"best", "fitness", "spent", "stop"}))
        return {**_ours(facts), **said}


def _messages(record: Think) -> dict[str, AttributeValue]:
    """The prompt and the replies of an LLM call."""
    asked = f"{SpanAttributes.LLM_INPUT_MESSAGES}.0"
    found: dict[str, AttributeValue] = {
        f"{asked}.{MessageAttributes.MESSAGE_ROLE}": "user",
        f"{asked}.{MessageAttributes.MESSAGE_CONTENT}": record.prompt,
        SpanAttributes.INPUT_VALUE: record.prompt,
        SpanAttributes.OUTPUT_VALUE: "\n\n".join(reply.raw for reply in record.replies),
    }
    for index, reply in enumerate(record.replies):
        said = f"{SpanAttributes.LLM_OUTPUT_MESSAGES}.{index}"
        found[f"{said}.{MessageAttributes.MESSAGE_ROLE}"] = "assistant"
        found[f"{said}.{MessageAttributes.MESSAGE_CONTENT}"] = reply.raw
        if reply.call is not None:
            called = f"{said}.{MessageAttributes.MESSAGE_TOOL_CALLS}.0"
            found[f"{called}.{ToolCallAttributes.TOOL_CALL_FUNCTION_NAME}"] = str(reply.call.get("name"))
            arguments = _json(reply.call.get("args"))
            found[f"{called}.{ToolCallAttributes.TOOL_CALL_FUNCTION_ARGUMENTS_JSON}"] = arguments
    return found


def _without_words(value: Any) -> Any:
    """Arguments or an answer without what a brain wrote in words."""
    return {name: one for name, one in value.items() if name not in FREE_TEXT} if isinstance(value, dict) else value


def _input(value: Any) -> dict[str, AttributeValue]:
    return {
        SpanAttributes.INPUT_VALUE: _json(value),
        SpanAttributes.INPUT_MIME_TYPE: OpenInferenceMimeTypeValues.JSON.value,
    }


def _output(value: Any) -> dict[str, AttributeValue]:
    return {
        SpanAttributes.OUTPUT_VALUE: _json(value),
        SpanAttributes.OUTPUT_MIME_TYPE: OpenInferenceMimeTypeValues.JSON.value,
    }


def _ours(values: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {f"{OURS}.{name}": value for name, value in values.items() if value is not None}


def _resource() -> Resource:
    """What the spans are of: our names, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says otherwise."""
    own = Resource({"service.name": "self-pruner", ResourceAttributes.PROJECT_NAME: "self-pruner"})
    return Resource.create().merge(own).merge(OTELResourceDetector().detect())


def _began(run: RunDirectory) -> float:
    """When the run was made, in seconds since 1970; 0 where nothing says so."""
    try:
        return datetime.fromisoformat(str(run.environment.get("created"))).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
