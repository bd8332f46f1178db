"""Replies piece by piece: what has come in the end is the reply as a whole, whoever makes it and however it is cut."""

import json
import random
import time
from types import SimpleNamespace

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

from self_pruner.agent.brain import decode
from self_pruner.agent.brain.endpoint import Endpoint, EndpointError, Served
from self_pruner.agent.brain.pieces import CallReader, Line, Until, Words
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.memory.errors import BrainError
from tests.brain_schemas import CHOICE, MUTATE, RECORD, function
from tests.brain_tiny import tiny_brain, tiny_tokenizer
from tests.endpoint import completion, obedient, serving
from tests.model_server import serving_model, streamed
from tests.tiny import tiny_model

PAGE = [HumanMessage("What now?")]
SECRET = "correct-horse-battery"
USAGE = {"prompt_tokens": 10, "completion_tokens": 20}


def remote(url, **options):
    options = {"tokenizer": tiny_tokenizer(), "served": Served("target", 2048), "temperature": 0.8, **options}
    return EndpointBrain(endpoint=Endpoint(url, timeout=options.pop("timeout", 20.0)), **options)


def whole(chunks):
    """All chunks as one message, and how many of them said something."""
    added, count = None, 0
    for one in chunks:
        count += bool(one.content or one.tool_call_chunks)
        added = one if added is None else added + one
    return added, count


def same(one, other):
    """Whether two messages say the same, apart from the time it took."""
    facts = [{**message.response_metadata, "seconds": 0} for message in (one, other)]
    said = [(message.text, message.tool_calls, message.usage_metadata) for message in (one, other)]
    return facts[0] == facts[1] and said[0] == said[1]


@pytest.mark.parametrize("thought_tokens", [0, 12])
def test_a_streamed_call_is_the_call_that_is_made_at_once(thought_tokens):
    for seed in range(6):
        brain = tiny_brain(thought_tokens=thought_tokens, max_tokens=200)
        message, count = whole(brain.stream(PAGE, tools=[MUTATE, RECORD, CHOICE], seed=seed))
        assert same(message, tiny_brain(thought_tokens=thought_tokens, max_tokens=200).invoke(
            PAGE, tools=[MUTATE, RECORD, CHOICE], seed=seed))  # fmt: skip
        assert count > 3 and message.tool_calls[0]["id"] == f"call_{seed}_0"


def test_a_streamed_text_is_the_text_that_is_made_at_once():
    for stop in ([], ["e"], ["\u4f60", "an"]):
        brain = tiny_brain(max_tokens=40, temperature=1, stop=stop)
        message, count = whole(brain.stream(PAGE, seed=2))
        assert same(message, tiny_brain(max_tokens=40, temperature=1, stop=stop).invoke(PAGE, seed=2))
        assert count > 3 or stop


def test_whoever_reads_a_stream_may_ask_again_before_it_is_over_and_may_leave_it():
    brain = tiny_brain(max_tokens=100)
    alone = tiny_brain(max_tokens=100).invoke(PAGE, tools=[CHOICE], seed=1)
    stream = brain.stream(PAGE, tools=[MUTATE], seed=1)
    next(stream)
    assert same(brain.invoke(PAGE, tools=[CHOICE], seed=1), alone)
    assert whole(stream)[0].tool_calls
    left = brain.stream(PAGE, tools=[MUTATE], seed=1)
    next(left)
    left.close()
    assert brain.invoke(PAGE, tools=[CHOICE], seed=1).tool_calls == alone.tool_calls


def test_the_time_in_which_a_stream_is_not_read_is_not_the_brains(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(decode, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    chunks = []
    for one in tiny_brain(max_tokens=100, time_limit=1.0).stream(PAGE, tools=[CHOICE]):
        clock[0] += 100
        chunks.append(one)
    message, count = whole(chunks)
    assert message.tool_calls and count > 2 and message.response_metadata["seconds"] == 0


def test_a_streamed_call_that_is_cut_is_an_invalid_one():
    for limit in range(14, 40, 5):
        message, _ = whole(tiny_brain(thought_tokens=0, max_tokens=limit).stream(PAGE, tools=[MUTATE]))
        assert not message.tool_calls and message.invalid_tool_calls
        assert message.response_metadata["finish_reason"] == "length"


def test_controls_stream_too_and_several_replies_are_no_stream():
    message, count = whole(UniformBrain().stream(PAGE, tools=[CHOICE], seed=4))
    assert message.tool_calls == UniformBrain().invoke(PAGE, tools=[CHOICE], seed=4).tool_calls and count == 2
    (several,) = tiny_brain().stream(PAGE, tools=[CHOICE], n=2)
    assert several.tool_calls


@pytest.mark.parametrize("listener", [_StreamingCallbackHandler, _V2StreamingCallbackHandler])
def test_whoever_listens_to_a_turn_of_several_replies_changes_none_of_them(listener):
    class Listener(listener, BaseCallbackHandler):
        def tap_output_iter(self, run_id, output):
            return output

        def tap_output_aiter(self, run_id, output):
            return output

    def said(**options):
        made = tiny_brain().generate([PAGE], seed=2, **options)
        return [generation.message.response_metadata["raw"] for generation in made.generations[0]]

    offers = [[CHOICE], [MUTATE], [RECORD]]
    for turn in ({"tools": [CHOICE], "n": 3}, {"variants": offers, "n": 3}, {"tools": [CHOICE]}):
        heard = said(callbacks=[Listener()], **turn)
        assert heard == said(**turn) and len(heard) == turn.get("n", 1)


def test_an_endpoint_streams_what_it_says_at_once():
    with serving_model(tiny_model("llama"), tiny_tokenizer()) as server:
        for seed in range(2):
            for options in ({"tools": [MUTATE, CHOICE]}, {}, {"stop": ["e"]}):
                brain = remote(server.url, thought_tokens=6, max_call_tokens=150)
                message, count = whole(brain.stream(PAGE, seed=seed, **options))
                assert same(message, remote(server.url, thought_tokens=6, max_call_tokens=150).invoke(
                    PAGE, seed=seed, **options))  # fmt: skip
                assert count > 2 or "stop" in options
                assert message.tool_calls or "tools" not in options
    streams = [asked for asked in server.asked if asked.get("stream")]
    assert all(asked["stream_options"] == {"include_usage": True} for asked in streams) and len(streams) == 6


def test_an_endpoint_that_does_not_stream_is_understood():
    with serving() as server:
        message, _ = whole(remote(server.url).stream(PAGE, tools=[CHOICE], seed=1))
        assert message.tool_calls == remote(server.url).invoke(PAGE, tools=[CHOICE], seed=1).tool_calls


@pytest.mark.parametrize("text", ["I would pick 3.", '{"name": "pick"}', "[1, 2]", '{"name": 3, "arguments": {}}', ""])
def test_streamed_nonsense_is_a_reply_without_a_call(text):
    with serving(lambda body: streamed(text, "stop", USAGE)) as server:
        message, _ = whole(remote(server.url).stream(PAGE, tools=[CHOICE]))
    assert not message.tool_calls and message.response_metadata["raw"] == text


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    "text",
    [
        f"I was told {SECRET}, so hf_{'a1' * 12} is it.",
        json.dumps({"thought": f"{SECRET} hm", "name": "evaluate", "arguments": {"note": SECRET, "n": [1]}}),
        json.dumps({"thought": "x", "name": "evaluate", "arguments": {"n": SECRET}}).replace("horse", r"h\u006frse"),
        '{"thought":"a\\\\","name":"evaluate","arguments":{"n":"\\"' + SECRET + '"}}',
    ],
)
def test_no_key_is_told_in_parts(text, size, monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", SECRET)

    def chat(body):
        return streamed(text, "stop", USAGE, size) if body.get("stream") else {"choices": [completion(text)]}

    tools = {"tools": [CHOICE]} if text.startswith("{") else {}
    with serving(chat) as server:
        message, _ = whole(remote(server.url).stream(PAGE, **tools))
        once = remote(server.url).invoke(PAGE, **tools)
    told = message.text + json.dumps([message.tool_calls, message.invalid_tool_calls, message.response_metadata])
    assert "horse" not in told and "a1a1" not in told and "redacted" in told
    assert (message.text, message.tool_calls) == (once.text, once.tool_calls)


def test_a_key_with_spaces_is_told_in_no_part_either(monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "correct horse {battery}")
    text = json.dumps({"thought": "correct horse {battery}", "name": "evaluate", "arguments": {"n": 1}})
    with serving(lambda body: streamed(text, "stop", USAGE)) as server:
        message, _ = whole(remote(server.url).stream(PAGE, tools=[CHOICE]))
    assert message.text == "[redacted]" and message.tool_calls[0]["args"] == {"n": 1}


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b'data: {"choices": [{"delta": {"content": "a "}}]}\n\n')
        time.sleep(0.05)


def flood(handler):
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    for _ in range(80):
        handler.wfile.write(b":" + b" " * (1 << 16) + b"\n")


def broken(*lines, encoding=None):
    def write(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        if encoding:
            handler.send_header("Content-Encoding", encoding)
        handler.end_headers()
        for line in lines:
            handler.wfile.write(line.encode() + b"\n\n")

    return write


@pytest.mark.parametrize(
    "answer, sentence",
    [
        ((500, "oh no"), "answers HTTP 500: oh no"),
        ((401, "{}"), "refuses to answer without a key"),
        ("not json", "answers what is no JSON: 'not json'"),
        (broken("data: x"), "answers what is no JSON: 'x'"),
        (broken('data: {"error": {"message": "out of memory"}}'), "breaks off: out of memory"),
        (broken("data: {}", encoding="gzip"), "in the encoding 'gzip'"),
        (flood, "answers more than 4 MB"),
    ],
)
def test_a_stream_that_is_none_is_a_sentence(answer, sentence):
    with serving(lambda body: answer) as server, pytest.raises(EndpointError, match=sentence):
        whole(remote(server.url).stream(PAGE, tools=[CHOICE]))


def test_a_stream_that_drips_ends_with_the_time_a_turn_may_take():
    with serving(lambda body: drip) as server, pytest.raises(BrainError, match="gave no answer within 1 s"):
        whole(remote(server.url, timeout=1.0).stream(PAGE, tools=[CHOICE]))


def test_events_of_strange_forms_are_passed_over():
    lines = ["data: {}", 'data: {"choices": 3}', 'data: {"choices": [7]}', 'data: {"choices": [{"delta": 1}]}', "event"]
    with serving(lambda body: broken(*lines, "data: [DONE]")) as server:
        message, _ = whole(remote(server.url).stream(PAGE, tools=[CHOICE]))
    assert not message.tool_calls


def test_without_a_form_a_model_behind_an_endpoint_is_named_as_asked():
    with serving(lambda body: {"choices": [completion("yes")]}) as server:
        message = remote(server.url).invoke(PAGE, model="other")
    assert (message.text, message.response_metadata["model_name"]) == ("yes", "other")
    assert server.asked[0]["model"] == "other" and "response_format" not in server.asked[0]
    assert "one JSON object" not in json.dumps(server.asked)


def test_open_strings_have_an_end_where_an_endpoint_is_asked():
    with serving(obedient) as server:
        remote(server.url).invoke(PAGE, tools=[function("tell", {"joke": {"type": "string"}})])
    schema = server.asked[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["arguments"]["properties"]["joke"]["maxLength"] == 1056 // 2


def test_readers_say_the_same_however_a_text_is_cut():
    call = {"thought": 'a "b" \\ \u4f60 {', "name": "f", "arguments": {"x": ["}", '"', {"name": 1}], "y": {}}, "z": "}"}
    for separators in ((",", ":"), (", ", ": ")):
        text = json.dumps(call, separators=separators)
        for seed in range(20):
            rng, reader, found, words = random.Random(seed), CallReader(), [], Words(json=True)
            left = text
            while left:
                size = rng.randint(1, 9)
                found += reader.feed(words.feed(left[:size]))
                left = left[size:]
            found += reader.feed(words.feed("", last=True))
            said = {kind: "".join(piece.said for piece in found if piece.kind == kind) for kind, _ in found}
            assert said["text"] == call["thought"] and said["name"] == "f"
            assert json.loads(said["arguments"]) == call["arguments"]


def test_lines_lose_the_white_space_around_them_and_texts_stop_at_their_words():
    line = Line(one_space=True)
    assert "".join(map(line.feed, ["  ", "a ", " ", "b", "\n c", " \ufffd"])) == "a b c"
    until = Until(["END", "stop"])
    said = [until.feed(part) for part in ["one E", "N", "x ", "st", "op two"]]
    assert "".join(said) == "one ENx " and said[0] == "one " and until.over
    assert Until(["abc"]).feed("ab", last=True) == "ab"
