"""`watch`: what it answers and whom, what it says when something is new, and that it only reads."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from main import main
from self_pruner.agent.report.page import server
from self_pruner.agent.report.page.server import Watch
from self_pruner.memory.errors import SettingsError
from tests.agent.report.page.made_up import made_up

ROOT = Path(__file__).parents[4]


def client(base, only=None, **options):
    return TestClient(Watch(base, only, **options).app(), base_url="http://127.0.0.1:8765")


@pytest.fixture
def mine(runs, tmp_path):
    """A copy of the runs, to be changed."""
    return shutil.copytree(runs, tmp_path / "mine")


def comparison(base):
    folder = base / "compared"
    inner = folder / "runs" / "hybrid-30-seed0"
    inner.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"arms": ["hybrid", "uniform"], "seeds": [0, 1], "sparsities": [0.3]}))
    shutil.copytree(base / "finished", inner / "tiny-20260102-000000")
    (inner / "comparison.json").write_text("{}")
    (folder / "table.md").write_text("- hybrid has the lowest perplexity.\n- More.\n")
    return folder


def test_the_list_has_every_run_with_its_state_and_comparisons_with_theirs(mine):
    comparison(mine)
    (mine / "no-run").mkdir()
    (mine / "memory.sqlite").touch()
    answer = client(mine).get("/runs.json").json()
    rows = {row["name"]: row for row in answer["runs"]}
    assert set(rows) == {"finished", "running", "failed", "begun", "compared"}
    states = {name: rows[name]["state"] for name in ("finished", "running", "failed", "begun")}
    assert states == dict(finished="finished", running="running", failed="failed", begun="running")
    row = rows["finished"]
    assert (row["arm"], row["budget"]) == ("hybrid", "30.0% of the decoder removed")
    assert (row["of"], row["evaluations"]) == (64, 12)
    assert row["best"] and row["fitness"] > 0
    assert rows["begun"].get("best") is None
    compared = rows["compared"]
    assert (compared["planned"], compared["finished"]) == (3, 1)  # a closed form is the same for every seed
    assert compared["sentence"] == "hybrid has the lowest perplexity."
    assert [one["id"] for one in compared["runs"]] == ["compared/runs/hybrid-30-seed0/tiny-20260102-000000"]


def test_a_damaged_run_or_plan_is_a_row_with_a_sentence(mine):
    (mine / "finished" / "settings.toml").write_text("[")
    (mine / "broken").mkdir()
    (mine / "broken" / "plan.json").write_text("[]")
    rows = {row["name"]: row for row in client(mine).get("/runs.json").json()["runs"]}
    assert rows["finished"]["state"] == "unknown" and "damaged" in rows["finished"]["budget"]
    assert "plan.json is damaged" in rows["broken"]["sentence"]
    assert "damaged" in client(mine).get("/run/finished/data.json").json()["error"]


def test_a_run_is_asked_for_whole_and_then_for_what_is_new(mine):
    browser = client(mine)
    assert "/run/running/data.json" in browser.get("/run/running").text
    whole = browser.get("/run/running/data.json?from=0").json()
    assert whole["run"] == "running" and whole["trace_from"] == 0 and len(whole["trace"]) > 10
    again = browser.get(f"/run/running/data.json?from={whole['trace_end']}").json()
    assert again["trace"] == [] and again["candidates"] == whole["candidates"]
    line = {"kind": "judge", "step": 99, "generation": 9, "spent": {"evaluations": 60}}
    kept = (mine / "running" / "trace.jsonl").read_bytes()[: whole["trace_end"]]
    (mine / "running" / "trace.jsonl").write_bytes(kept + json.dumps(line).encode() + b"\n")
    new = browser.get(f"/run/running/data.json?from={whole['trace_end']}").json()
    assert new["trace"] == [line] and new["progress"]["evaluations"] == 60
    for nonsense in ("-1", "x", "9" * 30, "²"):
        assert browser.get("/run/running/data.json", params={"from": nonsense}).json()["trace_from"] == 0


def test_a_run_that_is_deleted_while_it_is_watched_is_a_sentence(mine):
    browser = client(mine)
    assert browser.get("/run/failed/data.json").status_code == 200
    shutil.rmtree(mine / "failed")
    answer = browser.get("/run/failed/data.json")
    assert answer.status_code == 404 and "deleted or moved" in answer.json()["error"]


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "..%2Foutside",
        "%2e%2e/outside",
        "/outside",
        "finished/../../outside",
        "link",
        "finished/",
        ".",
        "",
        "finished%00",
    ],
)
def test_no_name_leads_out_of_the_folder_of_the_runs(mine, tmp_path, name):
    shutil.copytree(mine / "finished", tmp_path / "outside")
    (mine / "link").symlink_to(tmp_path / "outside")
    for end in ("", "/data.json", "/events"):
        assert client(mine).get(f"/run/{name}{end}").status_code in (404, 307)
    assert "link" not in {row["name"] for row in client(mine).get("/runs.json").json()["runs"]}


def test_of_one_run_no_other_is_shown(mine):
    comparison(mine)
    browser = client(mine, "finished")
    assert "/run/finished/data.json" in browser.get("/").text
    assert browser.get("/run/running/data.json").status_code == 404
    assert browser.get("/comparison/compared").status_code == 404
    assert [row["name"] for row in browser.get("/runs.json").json()["runs"]] == ["finished"]
    browser = client(mine, "compared")
    assert "/comparison/compared/data.json" in browser.get("/").text
    assert [row["name"] for row in browser.get("/runs.json").json()["runs"]] == ["compared"]
    assert browser.get("/run/compared/runs/hybrid-30-seed0/tiny-20260102-000000/data.json").status_code == 200
    assert browser.get("/run/finished/data.json").status_code == 404


def test_a_comparison_has_a_page_its_figures_and_the_runs_that_go_on(mine):
    folder = comparison(mine)
    made = []

    def document(asked):
        made.append(asked)
        return {"comparison": "2 arms", "text": "</script>"}

    browser = client(mine, compared=document)
    page = browser.get("/comparison/compared")
    assert page.status_code == 200 and "/comparison/compared/data.json" in page.text and not made
    row = browser.get("/comparison/compared/data.json").json()
    assert (row["comparison"], row["going"], made) == ("2 arms", [], [folder])
    record = folder / "runs" / "hybrid-30-seed0" / "comparison.json"
    record.unlink()
    (going,) = browser.get("/comparison/compared/data.json").json()["going"]
    assert going["id"] == "compared/runs/hybrid-30-seed0/tiny-20260102-000000" and going["state"] == "finished"
    assert len(made) == 2  # a run less is finished
    with open(folder / "runs" / "hybrid-30-seed0" / "tiny-20260102-000000" / "trace.jsonl", "a") as trace:
        trace.write("\n")
    browser.get("/comparison/compared/data.json")
    assert len(made) == 2
    for name in ("none", "finished", "../mine/compared", "compared/runs/hybrid-30-seed0"):
        assert browser.get(f"/comparison/{name}/data.json").status_code == 404
        assert browser.get(f"/comparison/{name}").status_code == 404


def test_a_damaged_comparison_is_a_sentence(mine):
    def document(folder):
        raise SettingsError("plan.json is damaged")

    comparison(mine)
    answer = client(mine, compared=document).get("/comparison/compared/data.json")
    assert answer.status_code == 409 and answer.json()["error"] == "plan.json is damaged"


PATHS = ("/", "/runs.json", "/run/finished", "/run/finished/data.json", "/runs/events", "/nothing")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8765", "localhost.evil", "", "[::", "a@b", "192.168.0.1"]
)
def test_a_request_that_names_another_host_is_refused(runs, path, host):
    answer = client(runs).get(path, headers={"host": host})
    assert answer.status_code == 421 and "finished" not in answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765", ""]
)
def test_a_request_from_another_page_is_refused_and_none_is_shared(runs, path, origin):
    answer = client(runs).get(path, headers={"origin": origin})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_names_of_this_machine_are_answered_through_any_port_and_nothing_is_kept(runs):
    for host in ("localhost:9000", "127.0.0.1", "[::1]:8765"):
        answer = client(runs).get("/runs.json", headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_writes(runs, method):
    for path in PATHS[:4]:
        assert client(runs).request(method, path).status_code == 405


def test_watching_changes_no_file(mine):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in mine.rglob("*")}
    browser = client(mine)
    for name in ("finished", "running", "failed", "begun"):
        assert browser.get(f"/run/{name}/data.json").status_code == 200
    browser.get("/runs.json")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in mine.rglob("*")} == before


def test_an_event_comes_at_once_and_whenever_a_file_changes_and_else_a_sign_of_life(mine, monkeypatch):
    monkeypatch.setattr(server, "SECONDS", 0.01)
    monkeypatch.setattr(server, "QUIET", 0.05)
    watch = Watch(mine)

    async def seen():
        events = watch._changes(lambda: server.stamp(mine / "running"))
        found = [await anext(events), await anext(events)]
        with open(mine / "running" / "trace.jsonl", "a") as trace:
            trace.write("\n")
        while (event := await anext(events)).startswith(":"):
            pass
        shutil.rmtree(mine / "running")
        while (gone := await anext(events)).startswith(":"):
            pass
        watch.closing = True
        return [*found, event, gone, [rest async for rest in events]]

    assert asyncio.run(seen()) == ["data: new\n\n", ": still here\n\n", "data: new\n\n", "data: new\n\n", []]


def test_a_run_whose_process_is_killed_is_told_so_though_none_of_its_files_changes(mine):
    sleeper = subprocess.Popen(["sleep", "60"])
    (mine / "running" / ".lock").write_text(str(sleeper.pid))
    browser = client(mine)
    assert browser.get("/run/running/data.json").json()["state"]["state"] == "running"
    sleeper.kill()
    sleeper.wait()
    assert browser.get("/run/running/data.json").json()["state"]["state"] == "interrupted"


def test_a_document_is_made_once_for_all_who_watch(mine, monkeypatch):
    made = []
    monkeypatch.setattr(server, "page_data", lambda *arguments: made.append(arguments) or {})
    browser = client(mine)
    for _ in range(3):
        browser.get("/run/running/data.json")
    assert len(made) == 1
    (mine / "running" / "status.json").write_text('{"status": "stopped", "reason": ""}')
    browser.get("/run/running/data.json")
    assert len(made) == 2


def test_a_port_in_use_and_no_folder_are_a_sentence(runs, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["watch", str(runs), "--port", port]) == 2
        error = capfd.readouterr().err
        assert error.startswith(f"error: --port {port} is in use") and error.count("\n") == 1
    assert main(["watch", str(runs / "none")]) == 2
    assert "there is no folder" in capfd.readouterr().err
    for port in ("65536", "x", "-1", "²"):
        assert main(["watch", str(runs), "--port", port]) == 2
        assert "error: --port: it takes a whole number from 0 to 65535, got" in capfd.readouterr().err


def test_it_serves_until_a_signal_ends_it_though_somebody_watches(tmp_path):
    made_up(tmp_path / "runs", "tiny", generations=1)
    process = subprocess.Popen(
        [sys.executable, "main.py", "watch", str(tmp_path / "runs"), "--port", "0"],
        **dict(cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        address, _, token = said.partition(" at ")[2].partition(" ")[0].partition("?token=")
        assert len(token) == 32
        events = urllib.request.urlopen(f"{address}runs/events", timeout=30)
        assert events.readline() == b"data: new\n"
        assert json.load(urllib.request.urlopen(f"{address}runs.json", timeout=30))["runs"][0]["best"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM and "Traceback" not in process.stdout.read()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(address, timeout=5)
    finally:
        process.kill()
