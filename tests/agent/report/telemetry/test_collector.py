"""What a collector is sent of a run: a tree that is the trace, through stops, and nothing that was not asked for."""

import json
import socket
from contextlib import contextmanager

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.report.telemetry import collector as product
from self_pruner.agent.report.telemetry import listeners
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Think, read_trace
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from tests.agent.report.telemetry.collector import collecting
from tests.agent.report.telemetry.conftest import HEADERS
from tests.stopped import SMALL


def test_a_run_is_a_tree_of_turns_with_their_calls(told):
    path, collector = told
    spans = collector.spans
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans) and len({span.trace for span in spans}) == 1
    (root,) = [span for span in spans if not span.parent]
    assert (root.name, root.kind) == ("run", "AGENT")
    turns = [span for span in spans if span.name == "turn"]
    assert all(span.parent == root.id and span.kind == "CHAIN" for span in turns)
    calls = [span for span in spans if span.kind in ("LLM", "TOOL")]
    assert calls and all(by_id[span.parent].name == "turn" for span in calls)
    for span in spans:
        above = by_id.get(span.parent, span)
        assert above.start <= span.start <= span.end <= above.end
    records = read_trace(path / "trace.jsonl")
    assert sorted(span.attributes["self_pruner.step"] for span in turns) == sorted({one.step for one in records})


def test_calls_have_what_the_trace_has_of_them(told):
    path, collector = told
    records = read_trace(path / "trace.jsonl")
    asked = [one for one in records if isinstance(one, Think) and one.replies]
    chats = sorted((span for span in collector.spans if span.kind == "LLM"), key=lambda span: span.start)
    assert asked and len(chats) == len(asked)
    for span, record in zip(chats, asked, strict=True):
        found = span.attributes
        assert found["llm.model_name"].endswith("/tiny")
        assert found["llm.token_count.prompt"] == record.input_tokens > 0
        assert found["llm.token_count.completion"] == record.output_tokens > 0
        assert found["llm.input_messages.0.message.content"] == record.prompt
        for index, reply in enumerate(record.replies):
            said = f"llm.output_messages.{index}.message"
            assert found[f"{said}.content"] == reply.raw
            assert found[f"{said}.tool_calls.0.tool_call.function.name"] == reply.call["name"]
    done = [one for one in records if isinstance(one, Act)]
    tools = sorted((span for span in collector.spans if span.kind == "TOOL"), key=lambda span: span.start)
    assert [(span.name, span.json("input.value")) for span in tools] == [(one.tool, one.arguments) for one in done]
    assert [span.json("output.value") for span in tools] == [one.result for one in done]


def test_the_run_says_how_it_ended_and_what_it_found(told):
    path, collector = told
    (root,) = [span for span in collector.spans if span.name == "run"]
    (result,) = [span for span in collector.spans if span.name == "result"]
    outcome = json.loads((path / "result.json").read_text())
    assert root.attributes["self_pruner.status"] == "finished"
    assert root.attributes["self_pruner.run"] == RunDirectory.open(path).id
    assert root.attributes["self_pruner.fitness"] == read_trace(path / "trace.jsonl")[-1].fitness
    assert result.json("output.value")["candidate"] == outcome["candidate"]
    assert root.json("input.value")["evaluations"] == 10


def test_where_and_as_what_spans_go_is_said_by_the_usual_variables(told):
    _, collector = told
    assert {span.service for span in collector.spans} == {"pruning"}
    name, _, value = HEADERS.partition("=")
    assert all(headers[name] == value for headers in collector.headers)


def test_a_stopped_run_goes_on_with_its_trace_and_tells_every_turn_once(begin, monkeypatch, capfd):
    """It is stopped between the brain's reply and the call; and without --otel-content nothing of the reply is sent."""
    asks = []

    @contextmanager
    def draining(ask):
        asks.append(ask)
        yield

    def see(self, record):
        if isinstance(record, Think) and record.replies:
            asks.pop()()
        real(self, record)

    real = product.Collector.see
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with monkeypatch.context() as patch:
            patch.setattr(session, "draining", draining)
            patch.setattr(product.Collector, "see", see)
            status, path = begin("--otel", "--brain", "self")
            assert status == 130
        first = collector.spans
        assert main(["resume", str(path)]) == 0
        second = collector.spans[len(first) :]
    records = read_trace(path / "trace.jsonl")
    assert first[-1].attributes["self_pruner.status"] == "stopped" and first[-1].status == 1
    assert second[-1].attributes["self_pruner.status"] == "finished"
    assert (first[-1].id, first[-1].trace) == (second[-1].id, second[-1].trace)
    turns = [span.attributes["self_pruner.step"] for span in [*first, *second] if span.name == "turn"]
    assert turns == sorted({one.step for one in records})
    chats = [span for span in [*first, *second] if span.kind == "LLM"]
    assert len(chats) == sum(isinstance(one, Think) and bool(one.replies) for one in records)
    said = [text for one in records if isinstance(one, Think) for text in (one.prompt, *(r.raw for r in one.replies))]
    sent = b"".join(collector.bodies)
    assert not any(text.encode() in sent for text in said if len(text) > 100)
    assert chats[0].attributes["llm.token_count.prompt"] > 0


def test_a_run_goes_on_where_no_collector_answers_and_says_so_once(begin, monkeypatch, capfd):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://me:password@127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds between two attempts
        status, path = begin("--otel")
    said = capfd.readouterr()
    assert status == 0 and RunDirectory.open(path).status == "finished"
    assert said.out.count("warning: spans for http://[redacted]@127.0.0.1") == 1
    assert "password" not in said.out + said.err and said.err == ""


def test_a_variable_that_cannot_be_used_is_said_and_the_run_goes_on(told, monkeypatch, capfd):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "0")
    with listeners.listening(make_settings({"otel": True}), RunDirectory.open(told[0]), View()) as found:
        found.see(read_trace(told[0] / "trace.jsonl")[0])
    said = capfd.readouterr().out
    assert said == "warning: no spans are sent: ValueError: schedule_delay_millis must be positive\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--otel"], '--otel needs packages that are not installed: pip install "self-pruner[otel]"'),
        (["--track", "trackio"], '--track trackio needs a package that is not installed: pip install "self-pruner'),
    ],
)
def test_a_missing_package_is_said_before_anything_is_made(model, tmp_path, monkeypatch, capfd, words, said):
    def missing(package):
        raise listeners.PackageNotFoundError(package)

    monkeypatch.setattr(listeners, "version", missing)
    assert main(["--model", str(model), "--runs", str(tmp_path / "runs"), *SMALL, *words]) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--track", "mlflow"], "--track: "),
        (["--otel-content"], "--otel-content says what --otel sends: give both or neither"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(tmp_path, capfd, words, said):
    assert main(["--runs", str(tmp_path / "runs"), *words]) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1
