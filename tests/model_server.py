"""A model behind the OpenAI-compatible server of endpoint.py: it keeps to schemas, is cut at its limit, and streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.chat_template import applied
from self_pruner.agent.brain.decode import Sampling, decode
from self_pruner.agent.brain.grammar import GrammarConstraint, printable, text_grammar
from tests.endpoint import Answer, Server, serving


def serving_model(model: Any, tokenizer: Any, *names: str) -> AbstractContextManager[Server]:
    """Serves one model, under several names if need be."""
    brain = TargetBrain(model=model, tokenizer=tokenizer)  # its alphabet and what ends a text
    vocab = model.get_output_embeddings().weight.shape[0]
    branches, turn = Branches(model), Lock()

    def chat(body: dict) -> Answer:
        grammar = text_grammar()
        if "response_format" in body:
            schema = printable(body["response_format"]["json_schema"]["schema"])
            grammar = "start: %json " + json.dumps({**schema, "x-guidance": {"whitespace_flexible": False}})
        stop = body.get("stop", [])
        sampling = Sampling(
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            max_tokens=body["max_tokens"],
            ends_in_time=False,
            over=lambda tokens: any(word in brain.alphabet.decode_str(tokens) for word in stop),
        )
        prompt = tokenizer(applied(tokenizer, body["messages"]), add_special_tokens=False)["input_ids"]
        with turn:
            *_, decoded = decode(
                branches,
                prompt,
                lambda _: GrammarConstraint(grammar, brain.alphabet, vocab),
                n=body.get("n", 1),
                seed=body.get("seed", 0),
                sampling=sampling,
                end=brain.end,
            )
        texts = [brain.alphabet.decode_str(sample.tokens) for sample in decoded.samples]
        reasons = ["stop" if sample.complete else "length" for sample in decoded.samples]
        written = sum(len(sample.tokens) for sample in decoded.samples)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": written}
        if body.get("stream"):
            return streamed(texts[0], reasons[0], usage)
        said = [{"role": "assistant", "content": text} for text in texts]
        choices = [{"message": one, "finish_reason": why} for one, why in zip(said, reasons, strict=True)]
        return {"model": body["model"], "choices": choices, "usage": usage}

    listed = [{"id": name, "max_model_len": model.config.max_position_embeddings} for name in names or ("target",)]
    return serving(chat, models={"data": listed})


def streamed(text: str, reason: str, usage: dict[str, int], size: int = 3) -> Any:
    """What writes a text in parts of `size` characters, as servers do."""

    def events() -> Iterator[dict[str, Any]]:
        yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        for start in range(0, len(text), size):
            yield {"choices": [{"index": 0, "delta": {"content": text[start : start + size]}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {"choices": [], "usage": usage}

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for event in events():
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        handler.wfile.write(b"data: [DONE]\n\n")

    return write
