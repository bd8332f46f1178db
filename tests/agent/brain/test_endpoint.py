"""A brain behind an endpoint: what it is asked, what its replies become, and every way in which it can fail."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import SecretStr

from self_pruner.agent.brain.calls import call_schemas, reply_schema
from self_pruner.agent.brain.endpoint import Endpoint, EndpointError, Served, checked_url, obeys_schemas, served_model
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.schema import violations
from self_pruner.memory.errors import BrainError
from self_pruner.tools.engines.server import _answers
from tests.endpoint import completion, obedient, serving
from tests.processes import silent_port

PICK = {
    "type": "function",
    "function": {
        "name": "pick",
        "description": "Pick one.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 3}, "kind": {"const": "odd"}},
            "required": ["number", "kind"],
        },
    },
}
DROP = {"type": "function", "function": {"name": "drop", "description": "Drop.", "parameters": {"type": "object"}}}
PROMPT = [SystemMessage("You pick."), HumanMessage("Pick a number.")]


class Words:
    """A tokenizer whose tokens are words."""

    chat_template = None
    all_special_tokens: list[str] = []
    added_tokens_decoder: dict[int, object] = {}

    def __call__(self, text: str, **_: object) -> dict:
        return {"input_ids": text.split()}


def brain(url: str, **options) -> EndpointBrain:
    timeout = options.pop("timeout", 20.0)
    return EndpointBrain(
        endpoint=Endpoint(url, timeout=timeout), served=Served("target", 4096), tokenizer=Words(), **options
    )


def ask(url: str, n: int = 1, tools=(PICK,), seed: int = 7, **options):
    """The messages of one turn."""
    variants = options.pop("variants", None)
    extra = {} if variants is None else {"variants": variants}
    made = brain(url, **options).generate([PROMPT], tools=list(tools), n=n, seed=seed, **extra)
    return [generation.message for generation in made.generations[0]]


def test_the_legal_calls_go_along_and_the_replies_are_calls():
    with serving() as server:
        replies = ask(server.url, n=3, temperature=0.5, top_p=0.9)
    assert [reply.tool_calls[0]["name"] for reply in replies] == ["pick"] * 3
    assert all(not violations(PICK["function"]["parameters"], reply.tool_calls[0]["args"]) for reply in replies)
    (asked,) = server.asked
    assert (asked["model"], asked["n"], asked["temperature"], asked["top_p"]) == ("target", 3, 0.5, 0.9)
    assert asked["messages"][0]["content"].startswith("You pick.")
    assert "one JSON object" in asked["messages"][0]["content"]
    schema = asked["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["thought", "name", "arguments"]
    assert "description" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("own", "given", "sent"), [(["", "B"], None, ["B"]), (["C"], ["B"], ["B"]), ([""], None, None)]
)
def test_a_text_ends_at_the_words_of_the_call_or_else_at_those_of_the_brain(own, given, sent):
    with serving(lambda body: {"choices": [completion("A B C")]}) as server:
        made = brain(server.url, stop=own).invoke([PROMPT[-1]], stop=given)
    assert made.content == ("A " if sent else "A B C") and server.asked[0].get("stop") == sent


def test_every_reply_has_its_own_variant_and_equal_ones_share_a_request():
    with serving() as server:
        replies = ask(server.url, n=3, variants=[[PICK], [DROP], [PICK]])
    assert [reply.tool_calls[0]["name"] for reply in replies] == ["pick", "drop", "pick"]
    assert sorted(asked["n"] for asked in server.asked) == [1, 2]


def test_several_calls_are_alternatives_of_one_schema():
    schema = reply_schema(call_schemas([PICK, DROP]), {"type": "string", "maxLength": 32})
    assert [branch["properties"]["name"]["enum"] for branch in schema["anyOf"]] == [["pick"], ["drop"]]
    assert not violations(schema, {"thought": "x", "name": "pick", "arguments": {"number": 1, "kind": "odd"}})
    assert violations(schema, {"thought": "x", "name": "pick", "arguments": {"number": 4, "kind": "odd"}})
    assert "thought" not in reply_schema(call_schemas([DROP]))["properties"]


def test_what_a_turn_costs_is_told_once():
    def chat(body: dict) -> dict:
        usage = {"prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 64}}
        return {**obedient(body), "usage": usage}

    with serving(chat) as server:
        first, second = ask(server.url, n=2)
    assert (first.response_metadata["prompt_tokens"], first.response_metadata["cached_tokens"]) == (100, 64)
    assert second.response_metadata["prompt_tokens"] == 0
    assert first.usage_metadata["output_tokens"] + second.usage_metadata["output_tokens"] == 30


def test_without_usage_tokens_are_counted_here():
    with serving(lambda body: {"choices": obedient(body)["choices"]}) as server:
        (reply,) = ask(server.url)
    asked = " ".join(turn["content"] for turn in server.asked[0]["messages"]).split()
    assert reply.response_metadata["prompt_tokens"] == len(asked)
    assert reply.usage_metadata["output_tokens"] == len(reply.response_metadata["raw"].split())


def test_what_is_added_to_a_prompt_for_a_call_is_counted():
    with serving(obedient) as server:
        asked = brain(server.url)
        asked.generate([PROMPT], tools=[PICK], seed=7)
        sent = server.asked[-1]["messages"]
    assert asked.get_num_tokens_from_messages(PROMPT) == sum(len(turn["content"].split()) for turn in sent)


def test_a_server_whose_template_is_deaf_to_the_system_gets_one_turn_of_the_user():
    with serving(obedient) as server:
        brain(server.url, system="user").generate([PROMPT], tools=[PICK], seed=7)
        (turn,) = server.asked[-1]["messages"]
    assert turn["role"] == "user" and turn["content"].startswith("You pick.\n\nPick a number.")


def test_a_server_that_gives_one_reply_at_a_time_is_asked_again():
    def chat(body: dict) -> dict:
        return obedient({**body, "n": 1})

    with serving(chat) as server:
        replies = ask(server.url, n=3)
    assert len(replies) == 3 and all(reply.tool_calls for reply in replies)
    assert [asked["n"] for asked in server.asked] == [3, 2, 1]
    assert len({asked["seed"] for asked in server.asked}) == 3


@pytest.mark.parametrize("text", ["I would pick 3.", '{"name": "pick"}', "[1, 2]", '{"name": 3, "arguments": {}}', ""])
def test_nonsense_is_a_reply_without_a_call_that_says_what_came(text):
    with serving(lambda body: {"choices": [completion(text)]}) as server:
        (reply,) = ask(server.url)
    assert reply.tool_calls == []
    assert reply.invalid_tool_calls[0]["args"] == text
    assert reply.response_metadata["raw"] == text


def test_raw_control_characters_in_a_thought_do_no_harm():
    text = '{"thought": "one\n\ttwo", "name": "pick", "arguments": {"number": 2, "kind": "odd"}}'
    with serving(lambda body: {"choices": [completion(text)]}) as server:
        (reply,) = ask(server.url)
    assert reply.content == "one two"
    assert reply.tool_calls[0]["args"] == {"number": 2, "kind": "odd"}


@pytest.mark.parametrize(
    "answer, sentence",
    [
        ((400, {"error": {"message": "bad schema: const"}}), "answers HTTP 400: bad schema: const"),
        ((500, "oh no"), "answers HTTP 500: oh no"),
        ((503, ""), "answers HTTP 503: nothing"),
        ((401, "{}"), "refuses to answer without a key in SELF_PRUNER_BRAIN_KEY"),
        ("not json", "answers what is no JSON: 'not json'"),
        ([1, 2], "answers no JSON object"),
        ({"choices": []}, "answers what is no chat completion"),
        ({"detail": "hm"}, "answers what is no chat completion"),
    ],
)
def test_a_refusal_is_a_sentence(answer, sentence):
    with serving(lambda body: answer) as server, pytest.raises(EndpointError, match=sentence):
        ask(server.url)


def test_a_redirection_is_named_and_not_followed():
    moved = serving(lambda body: (307, "{}"), location="http://elsewhere.example/v1")
    with moved as server, pytest.raises(EndpointError, match="sends elsewhere, to http://elsewhere.example/v1"):
        ask(server.url)


def test_an_endpoint_that_is_down_is_said():
    with silent_port() as port:
        url = f"http://127.0.0.1:{port}/v1"
        with pytest.raises(EndpointError, match=f"{url} cannot be reached"):
            ask(url)


def test_a_slow_endpoint_ends_with_the_time_a_turn_may_take():
    over = Event()

    def chat(body: dict) -> dict:
        over.wait(600)
        return obedient(body)

    try:
        with serving(chat) as server, pytest.raises(BrainError, match="gave no answer within 1 s"):
            ask(server.url, timeout=1.0)
    finally:
        over.set()


def test_the_key_goes_along_and_shows_nowhere():
    endpoint = None
    with serving() as server:
        endpoint = Endpoint(server.url, SecretStr("my-secret"))
        made = EndpointBrain(endpoint=endpoint, served=Served("target", None), tokenizer=Words())
        made.generate([PROMPT], tools=[PICK])
    assert server.keys == ["Bearer my-secret"]
    assert "my-secret" not in repr(made) + repr(endpoint)


@pytest.mark.parametrize(
    "url, sentence",
    [
        ("localhost:8000", "is no address"),
        ("ftp://host/v1", "is no address"),
        ("http://", "is no address"),
        ("http://192.168.1.256:8000/v1", "is no address"),
        ("http://a..b/v1", "is no address"),
        (f"http://{'a' * 70}.com/v1", "is no address"),
        ("http://\u2603.invalid/v1", "is no address"),
        ("http://localhost:1/\x7fv1", "is no address"),
        ("http://me:secret@host/v1", "a name or password ends up in files: put the key into SELF_PRUNER_BRAIN_KEY"),
    ],
)
def test_an_address_that_is_none_or_holds_a_password_is_refused(url, sentence):
    with pytest.raises(EndpointError, match=sentence):
        checked_url(url)


def test_the_only_model_is_taken_and_one_of_several_is_named():
    with serving() as server:
        assert served_model(Endpoint(checked_url(server.url + "/")), None) == Served("target", 4096)
    with serving(models={"data": [{"id": "a"}, {"id": "b"}]}) as server:
        assert served_model(Endpoint(server.url), "b") == Served("b", None)
        with pytest.raises(EndpointError, match="serves several models: name one of a, b with --brain-model"):
            served_model(Endpoint(server.url), None)
        with pytest.raises(EndpointError, match="serves no 'c', only a, b"):
            served_model(Endpoint(server.url), "c")


@pytest.mark.parametrize("models", [{"data": []}, {"data": "x"}, {}])
def test_an_endpoint_that_lists_no_model_is_said(models):
    with serving(models=models) as server, pytest.raises(EndpointError, match="lists no model"):
        served_model(Endpoint(server.url), None)


def test_an_address_without_its_end_is_guessed():
    with serving() as server, pytest.raises(EndpointError, match="HTTP 404: .*; does its address end in /v1?"):
        served_model(Endpoint(server.url.removesuffix("/v1")), None)


def test_whether_schemas_are_kept_to_is_tried():
    with serving() as server:
        assert obeys_schemas(Endpoint(server.url), "target")
    with serving(lambda body: {"choices": [completion("Hello!")]}) as server:
        assert not obeys_schemas(Endpoint(server.url), "target")
    refusal = serving(lambda body: (400, {"error": "response_format is not supported"}))
    with refusal as server, pytest.raises(EndpointError, match="not supported; the brain's replies need JSON schemas"):
        obeys_schemas(Endpoint(server.url), "target")


class Healthy(BaseHTTPRequestHandler):
    """An engine that has started."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *said):
        pass


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_what_is_on_this_machine_is_asked_without_a_proxy(monkeypatch, variable):
    with silent_port() as nobody, HTTPServer(("127.0.0.1", 0), Healthy) as engine:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{nobody}")
        monkeypatch.delenv("no_proxy", raising=False)
        with serving(lambda body: {"choices": []}) as server:
            endpoint = Endpoint(server.url)
            assert served_model(endpoint, None)
            assert list(endpoint.events("/chat/completions", {}, time.monotonic() + 20)) == [{"choices": []}]
        Thread(target=engine.handle_request).start()
        assert _answers(engine.server_port)
