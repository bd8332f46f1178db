"""An endpoint that means harm: it cannot hold a turn, fill the memory, spend for nothing, or hand a key back."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from urllib.parse import quote

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import SecretStr

from self_pruner.agent.brain.endpoint import (
    LARGEST,
    Endpoint,
    EndpointError,
    Served,
    checked_url,
    served_model,
)
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.schema import DEEPEST
from self_pruner.agent.prepare.brain import endpoint_of
from self_pruner.agent.settings.settings import make_settings
from self_pruner.memory.errors import BrainError, EngineError, SettingsError
from tests.agent.brain.test_endpoint import PICK, Words
from tests.endpoint import completion, obedient, serving

KEY = 'k"9/Zurich+of=the&day'
PROMPT = [SystemMessage("You pick."), HumanMessage(" ".join(["number"] * 100))]


def ask(url: str, n: int = 1, timeout: float = 20.0, key: str | None = None, **options):
    endpoint = Endpoint(url, SecretStr(key) if key else None, timeout)
    brain = EndpointBrain(endpoint=endpoint, served=Served("target", 4096), tokenizer=Words(), **options)
    return [one.message for one in brain.generate([PROMPT], tools=[PICK], n=n, seed=7).generations[0]]


def drip(head: bool):
    """A server that says one byte at a time, for a minute, of its headers or of its answer.

    Returns what it writes, an event that ends it, and one that says it came to its own end.
    """
    ended, finished = threading.Event(), threading.Event()

    def write(handler) -> None:
        if not head:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(1200):
            if ended.wait(0.05):
                return
            handler.wfile.write(b" ")
            handler.wfile.flush()
        finished.set()

    return write, ended, finished


@pytest.mark.parametrize("head", [True, False])
def test_a_byte_now_and_then_does_not_outlast_the_turn(head):
    write, ended, finished = drip(head)
    try:
        with serving(lambda body: write) as server, pytest.raises(BrainError, match="no answer within 1 s"):
            ask(server.url, timeout=1.0)
        assert not finished.is_set()
    finally:
        ended.set()


def test_several_requests_of_a_turn_share_its_time():
    def chat(body: dict) -> dict:
        time.sleep(0.5)
        return obedient({**body, "n": 1})

    with serving(chat) as server, pytest.raises(BrainError, match="no answer within 1 s"):
        ask(server.url, n=12, timeout=1.0)
    assert len(server.asked) <= 4


@pytest.mark.parametrize("told", [True, False])
def test_an_answer_that_does_not_end_is_given_up(told):
    sent = 0

    def write(handler) -> None:
        nonlocal sent
        length = f"Content-Length: {64 * LARGEST}\r\n" if told else ""
        handler.wfile.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        for _ in range(64):
            handler.wfile.write(b" " * LARGEST)
            sent += LARGEST

    with serving(lambda body: write) as server, pytest.raises(EndpointError, match="more than 4 MB"):
        ask(server.url)
    assert sent < 16 * LARGEST


def test_a_small_answer_that_unpacks_to_a_large_one_is_refused():
    packed = gzip.compress(b" " * (16 * LARGEST))

    def write(handler) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        handler.wfile.write(head.encode() + packed)

    with serving(lambda body: write) as server, pytest.raises(EndpointError, match="encoding 'gzip'"):
        ask(server.url)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 100_000])
def test_an_answer_of_boxes_in_boxes_is_a_sentence(depth):
    boxes = serving(lambda body: '{"choices": ' + "[" * depth + "]" * depth + "}")
    with boxes as server, pytest.raises(EndpointError, match="nests its answer too deep|is no JSON"):
        ask(server.url)
    text = '{"thought": "", "name": "pick", "arguments": {"number": ' + "[" * depth + "]" * depth + "}}"
    with serving(lambda body: {"choices": [completion(text)]}) as server:
        (reply,) = ask(server.url)
    assert reply.tool_calls == [] and reply.invalid_tool_calls[0]["args"] == text


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1_000_000, "completion_tokens": -5},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 10**12, "completion_tokens": 10**12},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 1.5, "completion_tokens": "many"},
        {"prompt_tokens": None},
        {"prompt_tokens": 10**12, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 10**12}},
        {"prompt_tokens": 0, "prompt_tokens_details": "x"},
        "none",
        [],
    ],
)
def test_usage_that_cannot_be_is_counted_here(usage):
    with serving(lambda body: {**obedient(body), "usage": usage}) as server:
        (reply,) = ask(server.url)
    read = sum(len(turn["content"].split()) for turn in server.asked[0]["messages"])
    assert reply.response_metadata["prompt_tokens"] == read > 100
    assert reply.response_metadata["cached_tokens"] == 0
    assert reply.usage_metadata["output_tokens"] == len(reply.response_metadata["raw"].split()) > 0


@pytest.mark.parametrize("cached", [-1, 10**9, True, "all"])
def test_more_tokens_from_a_cache_than_were_read_are_none(cached):
    usage = {"prompt_tokens": 150, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": cached}}
    with serving(lambda body: {**obedient(body), "usage": usage}) as server:
        (reply,) = ask(server.url)
    assert reply.response_metadata["prompt_tokens"] == 150 and reply.response_metadata["cached_tokens"] == 0


def test_a_context_that_cannot_be_is_none_that_is_told():
    with serving(models={"data": [{"id": "a", "max_model_len": -4096}]}) as server:
        assert served_model(Endpoint(server.url), None).context is None


FORMS = {
    "as it is": KEY,
    "percent-encoded": quote(KEY, safe=""),
    "percent-encoded in lower case": re.sub("%..", lambda found: found[0].lower(), quote(KEY, safe="")),
    "in base64": base64.b64encode(KEY.encode()).decode(),
    "in base64 after a name": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "in base64 after Bearer": base64.urlsafe_b64encode(f"Bearer {KEY}".encode()).decode(),
    "in JSON": json.dumps({"Authorization": f"Bearer {KEY}"}),
    "in escapes": "".join(f"\\u{ord(one):04x}" for one in KEY),
    "in JSON in JSON": json.dumps(json.dumps({"Authorization": f"Bearer {KEY}"})),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_comes_back_is_blotted_out_of_what_the_brain_said(form, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", KEY)
    text = json.dumps({"thought": FORMS[form], "name": "pick", "arguments": {"number": 2, "kind": "odd"}})
    text = text.replace("\\\\u", "\\u")
    with serving(lambda body: {"choices": [completion(text)]}) as server:
        (reply,) = ask(server.url, key=KEY)
    assert server.keys[0] is not None
    shown = repr(reply) + reply.content + reply.response_metadata["raw"]
    assert "[redacted]" in reply.content
    assert KEY not in shown and FORMS[form] not in shown and base64.b64encode(KEY.encode()).decode()[4:-4] not in shown
    assert reply.tool_calls[0]["args"] == {"number": 2, "kind": "odd"}


@pytest.mark.parametrize(
    "answer",
    [
        (500, f"your header was Bearer {KEY}"),
        (400, {"error": {"message": f"Bearer {KEY}"}}),
        (400, {"error": {"headers": {"Authorization": KEY}}}),
        f"no JSON but {KEY}",
        [KEY],
        {"choices": KEY},
    ],
)
def test_nor_does_an_error_quote_it(answer, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", KEY)
    with serving(lambda body: answer) as server, pytest.raises(EndpointError, match=r"\[redacted\]") as caught:
        ask(server.url, key=KEY)
    assert "Zurich" not in str(caught.value) and "9/Z" not in str(caught.value)


def test_nor_does_a_redirection(monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "long-secret-key")
    moved = serving(lambda body: (307, "{}"), location="http://elsewhere.example/?key=long-secret-key")
    with moved as server, pytest.raises(EndpointError, match=r"key=\[redacted\]"):
        ask(server.url, key="long-secret-key")


@pytest.mark.parametrize(
    "url",
    [
        "http://host/v1?api_key=abc",
        "http://host/v1?token=abc",
        "http://host/v1?",
        "http://host/v1#abc",
        "http://host/long-secret-key/v1",
        "http://me:abc@host/v1",
        "http://:abc@host/v1",
        "http://@host/v1",
    ],
)
@pytest.mark.parametrize("arm", ["self", "evolution"])
def test_an_address_with_a_key_in_it_is_refused_whoever_is_asked(url, arm, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "long-secret-key")
    with pytest.raises(EndpointError, match="SELF_PRUNER_BRAIN_KEY") as caught:
        checked_url(url)
    with pytest.raises(SettingsError, match="SELF_PRUNER_BRAIN_KEY"):
        make_settings({"brain_url": url, "arm": arm})
    assert "abc" not in str(caught.value) and "long-secret-key" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host:port/v1", "http://[::1/v1"])
def test_an_address_that_cannot_be_read_is_a_sentence(url):
    with pytest.raises(EndpointError, match="is no address of an endpoint"):
        checked_url(url)


def test_the_key_of_an_endpoint_is_not_sent_to_a_server_of_our_own(monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "long-secret-key")
    settings = make_settings({"brain_url": "http://host/v1"})
    assert endpoint_of(settings).key == SecretStr("long-secret-key")
    with serving() as server:
        own = endpoint_of(make_settings({"brain": "vllm"}), server.url)
        own.ask("POST", "/chat/completions", {"response_format": {"json_schema": {"schema": {"enum": [1]}}}})
    assert own.key is None and server.keys == [None]


def test_nor_is_it_in_the_environment_of_that_server(monkeypatch, tmp_path):
    from self_pruner.tools.engines.server import served

    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "long-secret-key")
    monkeypatch.setenv("VLLM_API_KEY", "another-secret-key")
    monkeypatch.setenv("HARMLESS", "kept")
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    with pytest.raises(EngineError), served(python, "model", log, dtype="float32", max_model_len=8):
        pass
    assert "kept" in log.read_text() and "secret-key" not in log.read_text()


@pytest.mark.parametrize("key", ["secret\nkey", "secret-k\u00fcy", "secret\x00key"])
def test_a_key_that_no_header_can_carry_is_a_sentence_without_it(key):
    with serving() as server, pytest.raises(EndpointError, match="characters that no header can carry") as caught:
        ask(server.url, key=key)
    assert "secret" not in str(caught.value)


def test_whitespace_around_a_key_is_none_of_it(monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", " long-secret-key\n")
    assert endpoint_of(make_settings({"brain_url": "http://host/v1"})).key == SecretStr("long-secret-key")
