"""What the page may write: with the token alone, to runs alone, and in a sentence where it may not."""

import json
import shutil

import pytest
from starlette.testclient import TestClient

from self_pruner.agent.report.page.server import Watch
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.steering import NOTES, REQUEST, read_notes, requested
from self_pruner.prompts.templates import PromptSet
from tests.agent.report.page.made_up import made_up

TOKEN = "the-token"
PATH = "/run/here/say"


@pytest.fixture
def run(tmp_path):
    """A run that somebody carries out."""
    made = made_up(tmp_path, "tiny", generations=1, over=False)
    shutil.rmtree(made.prompts)
    PromptSet("default").copy_to(made.prompts)
    made.path.rename(tmp_path / "here")
    with RunDirectory.open(tmp_path / "here", exclusive=True) as run:
        yield run


def said(run, content, token=TOKEN, path=PATH, server=TOKEN, **headers):
    client = TestClient(Watch(run.path.parent, token=server).app(), base_url="http://127.0.0.1:8765")
    sent = {"x-token": token} if token is not None else {}
    body = content if isinstance(content, bytes | str) else json.dumps(content)
    return client.post(path, content=body, headers={**sent, **headers})


def untouched(run):
    return not (run.path / NOTES).exists() and not (run.path / REQUEST).exists()


def test_with_the_token_a_run_is_told_something_paused_and_stopped(run):
    assert said(run, {"tell": "keep layer 0 whole"}).json()["said"]
    assert [note.text for note in read_notes(run.path)] == ["keep layer 0 whole"]
    for wanted, then in (("pause", "pause"), ("go on", None), ("stop", "stop")):
        assert said(run, {"request": wanted}).status_code == 200 and requested(run.path) == then


@pytest.mark.parametrize("token", [None, "", "the-toke", "the-token2", "\u00e9".encode(), TOKEN.upper()])
def test_without_it_nothing_is_written(run, token):
    for content in ({"tell": "x"}, {"request": "stop"}):
        assert said(run, content, token).status_code == 403
    assert untouched(run)


def test_a_server_without_a_token_takes_nothing(run):
    for token in (None, "", TOKEN):
        assert said(run, {"request": "stop"}, token, server=None).status_code == 405
    assert untouched(run)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765"])
def test_another_page_writes_nothing_though_it_has_the_token(run, origin):
    assert said(run, {"request": "stop"}, origin=origin).status_code == 403
    assert said(run, {"request": "stop"}, host="evil.example").status_code == 421
    assert untouched(run)
    assert said(run, {"request": "stop"}, origin="http://127.0.0.1:8765").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"[" * 4000, b"null", b"\xff", b'"stop"', {}, {"tell": 1}, {"request": "delete"}),
        *({"tell": "x", "request": "stop"}, {"path": "/etc/passwd"}, {"tell": "x" * 5000}),
    ],
)
def test_what_says_nothing_is_refused(run, content):
    answer = said(run, content)
    assert answer.status_code == 400 and answer.json()["error"] and untouched(run)


@pytest.mark.parametrize(
    "path", ["/run/none/say", "/run/../here/say", "/run//say", "/run/here/runs/say", "/run/%2e%2e/say"]
)
def test_only_runs_that_are_shown_are_told_anything(run, path):
    assert said(run, {"tell": "x"}, path=path).status_code in (404, 405)
    assert untouched(run)


def test_what_the_command_refuses_the_page_refuses_in_the_same_words(run):
    assert "240" in said(run, {"tell": "x" * 241}).json()["error"]
    assert "not asked to pause" in said(run, {"request": "go on"}).json()["error"]
    run.set_status("finished")
    answer = said(run, {"tell": "x"})
    assert answer.status_code == 409 and "is finished" in answer.json()["error"] and untouched(run)


def test_reading_needs_no_token_and_tells_none(run):
    client = TestClient(Watch(run.path.parent, token=TOKEN).app(), base_url="http://127.0.0.1:8765")
    for path in ("/", "/run/here", "/run/here/data.json", "/runs.json"):
        answer = client.get(path)
        assert answer.status_code == 200 and TOKEN not in answer.text
    assert client.get("/token").status_code == 403
    assert client.get("/token", headers={"x-token": TOKEN}).status_code == 204
