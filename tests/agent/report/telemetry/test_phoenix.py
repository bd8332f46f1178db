"""A run in a real Arize Phoenix: the tree, what went in and out of calls, and tokens, as its own API tells them.

It lives in an environment of its own; SELF_PRUNER_PHOENIX_PYTHON names its Python.
"""

import os
import subprocess
import time
from contextlib import contextmanager

import httpx
import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Think, read_trace
from tests.processes import free_port

PYTHON = os.environ.get("SELF_PRUNER_PHOENIX_PYTHON")
pytestmark = [
    pytest.mark.phoenix,
    pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_PHOENIX_PYTHON names no Python with Arize Phoenix"),
]
STARTS = 180.0  # seconds that it may take to answer
TOTALS = """
{ node(id: "%s") { ... on Project {
    traceCount tokenCountTotal
    spans(filterCondition: "parent_id is None", first: 10) { edges { node { name cumulativeTokenCountTotal } } }
} } }
"""


@contextmanager
def phoenix(folder):
    """A server on loopback; its address."""
    port = str(free_port())
    own = {"PHOENIX_WORKING_DIR": str(folder), "PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": port}
    own |= {"PHOENIX_GRPC_PORT": str(free_port()), "PHOENIX_TELEMETRY_ENABLED": "false"}
    url = f"http://127.0.0.1:{port}"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "phoenix.server.main", "serve"], env=os.environ | own, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + STARTS
        while not answers(url):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url):
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def spans_of(url):
    """All spans of the project, once the run's own has come in: they are stored a moment after they were taken."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = httpx.get(f"{url}/v1/projects/self-pruner/spans", params={"limit": 1000})
        found = answer.json()["data"] if answer.is_success else []
        if any(span["name"] == "run" for span in found):
            return found
        time.sleep(0.5)
    raise AssertionError("the run did not appear")


def test_a_run_appears_as_a_tree_with_inputs_outputs_and_token_counts(begin, tmp_path, monkeypatch):
    with phoenix(tmp_path) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        status, path = begin("--brain", "self", "--otel", "--otel-content")
        assert status == 0
        spans = spans_of(url)
        (project,) = [one for one in httpx.get(f"{url}/v1/projects").json()["data"] if one["name"] == "self-pruner"]
        totals = httpx.post(f"{url}/graphql", json={"query": TOTALS % project["id"]}).json()["data"]["node"]
    by_id = {span["context"]["span_id"]: span for span in spans}
    (root,) = [span for span in spans if span["parent_id"] is None]
    assert root["span_kind"] == "AGENT" and root["status_code"] == "OK"
    assert root["attributes"]["self_pruner.run"] == RunDirectory.open(path).id
    kinds = {span["span_kind"] for span in spans}
    assert kinds == {"AGENT", "CHAIN", "LLM", "TOOL"}
    for span in spans:
        above = by_id.get(span["parent_id"])
        assert {"AGENT": None, "CHAIN": "run"}.get(span["span_kind"], "turn") == (above and above["name"])
    asked = [one for one in read_trace(path / "trace.jsonl") if isinstance(one, Think) and one.replies]
    chats = sorted((span for span in spans if span["span_kind"] == "LLM"), key=lambda span: span["start_time"])
    assert [span["attributes"]["input.value"] for span in chats] == [one.prompt for one in asked]
    assert [span["attributes"]["llm.output_messages.0.message.content"] for span in chats] == [
        one.replies[0].raw for one in asked
    ]
    assert all(
        {"input.value", "output.value"} <= span["attributes"].keys() for span in spans if span["span_kind"] == "TOOL"
    )
    tokens = sum(one.input_tokens + one.output_tokens for one in asked)
    assert totals["traceCount"] == 1 and totals["tokenCountTotal"] == tokens
    (found,) = totals["spans"]["edges"]
    assert found["node"] == {"name": "run", "cumulativeTokenCountTotal": tokens}
