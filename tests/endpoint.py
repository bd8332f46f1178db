"""A small OpenAI-compatible server for tests: what it answers is a function, and all it was asked is kept."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from self_pruner.agent.brain.schema import sample_call

Answer = dict | list | str | tuple[int, Any] | Callable[[BaseHTTPRequestHandler], None] | None


@dataclass
class Server:
    """Its address, and what it was asked."""

    url: str
    asked: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def obedient(body: dict) -> dict:
    """A completion with as many legal replies as were asked for, drawn from the schema that came along."""
    schema = body["response_format"]["json_schema"]["schema"]
    rng = random.Random(body.get("seed", 0))
    choices = [completion(json.dumps(sample_call(schema, rng))) for _ in range(body.get("n", 1))]
    return {"choices": choices, "usage": {"prompt_tokens": 100, "completion_tokens": 10 * len(choices)}}


def completion(text: str, reason: str = "stop") -> dict:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": reason}


MODELS = {"data": [{"id": "target", "max_model_len": 4096}]}


@contextmanager
def serving(
    chat: Callable[[dict], Answer] = obedient, models: Answer = None, location: str | None = None
) -> Iterator[Server]:
    """Answers GET /v1/models with `models` and POST /v1/chat/completions with `chat(body)`.

    An answer is JSON, a text as it is, (status, either), or a function that writes all of it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.give(MODELS if models is None else models, self.path == "/v1/models")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            server.keys.append(self.headers.get("Authorization"))
            self.give(chat(body), self.path == "/v1/chat/completions")

        def give(self, answer: Answer, known: bool) -> None:
            if callable(answer):
                with suppress(OSError):  # the other side may have had enough
                    answer(self)
                return
            status, said = answer if isinstance(answer, tuple) else (200, answer)
            status = status if known else 404
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):  # the other side may have had enough
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as address:
        server = Server(f"{address}/v1")
        yield server


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answers on loopback for as long as this lasts; yields the address, without a slash."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()  # seconds between looks
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
