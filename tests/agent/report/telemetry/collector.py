"""A collector for tests: it takes spans as OTLP over HTTP, as any collector does, and keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.endpoint import listening


@dataclass
class Span:
    """One span as it came in; attributes by name, `service` from its resource."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    status: int
    message: str
    attributes: dict[str, Any]
    service: str

    @property
    def kind(self) -> str:
        return str(self.attributes["openinference.span.kind"])

    def json(self, name: str) -> Any:
        """An attribute that is JSON."""
        return json.loads(self.attributes[name])


@dataclass
class Collector:
    """Its address, and all that it was sent."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        return [span for body in self.bodies for span in spans_of(ExportTraceServiceRequest.FromString(body))]


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    """The spans of one request."""
    return [
        Span(
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            status=span.status.code,
            message=span.status.message,
            attributes=values(span.attributes),
            service=values(group.resource.attributes)["service.name"],
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listens on loopback for as long as this lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collector.bodies.append(body)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as address:
        collector = Collector(address)
        yield collector
