"""The search in LangGraph Studio's own server, which lists it and takes it to its end, and as a graph without one.

The server lives in an environment of its own; SELF_PRUNER_STUDIO_PYTHON names its Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from self_pruner.agent.command_line import studio
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import read_trace
from self_pruner.memory.errors import ModelError, RunDirectoryError, SettingsError
from tests.processes import free_port

ROOT = Path(__file__).parents[3]
PYTHON = os.environ.get("SELF_PRUNER_STUDIO_PYTHON")
STARTS = 180.0  # seconds that the server may take to answer
THREAD = {"configurable": {"thread_id": "one"}}


def asked(model: Path) -> dict:
    return {"model": str(model), "arm": "evolution", "candidates": 8}


def test_what_is_submitted_goes_its_way_as_any_run_does(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the runs are
    graph = studio.graph()
    steps = [
        name
        for _, update in graph.stream(asked(model), THREAD, stream_mode="updates", subgraphs=True)
        for name in update
    ]
    assert steps[0] == "begin" and steps[-1] == "finish"
    (path,) = (tmp_path / "runs").glob("tiny-*")
    run = RunDirectory.open(path)
    assert run.status == "finished" and run.reason == "8 evaluations are used up"
    assert steps.count("judge") == len({record.step for record in read_trace(run.trace)})
    assert (path / "report.html").is_file()


def test_a_search_that_is_left_for_another_is_stopped(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = studio.graph()
    left = graph.stream(asked(model), THREAD, stream_mode="updates")
    assert next(left)["begin"]["step"] == 0
    with pytest.raises(ModelError):
        graph.invoke(asked(tmp_path / "none"), {"configurable": {"thread_id": "two"}})
    (path,) = (tmp_path / "runs").glob("tiny-*")
    assert RunDirectory.open(path).status == "stopped"
    with pytest.raises(RunDirectoryError, match="submit its settings again"):
        list(left)


def test_a_setting_that_is_none_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="--sparsity"):
        studio.graph().invoke({"sparsity": 2.0}, THREAD)
    assert not list(tmp_path.iterdir())


@pytest.mark.studio
@pytest.mark.skipif(PYTHON is None, reason="SELF_PRUNER_STUDIO_PYTHON names no Python with langgraph-cli[inmem]")
def test_langgraph_dev_lists_the_search_and_takes_it_to_its_end(model, tmp_path):
    """In a folder with a copy of langgraph.json, which names the very file, so that nothing is left in the checkout."""
    config = json.loads((ROOT / "langgraph.json").read_text())
    config["graphs"] = {name: str(ROOT / place) for name, place in config["graphs"].items()}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    port = str(free_port())
    command = [PYTHON, "-m", "langgraph_cli", "dev", "--port", port, "--no-browser", "--no-reload"]
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LANGSMITH_TRACING": "false"}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            deadline = time.monotonic() + STARTS
            while not answers(client):
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.5)
            (assistant,) = client.post("/assistants/search", json={}).json()
            assert assistant["graph_id"] == "search"
            drawn = client.get(f"/assistants/{assistant['assistant_id']}/graph", params={"xray": True}).json()
            assert {"search:think", "search:act", "search:judge"} <= {node["id"] for node in drawn["nodes"]}
            schemas = client.get(f"/assistants/{assistant['assistant_id']}/schemas").json()
            assert {"model", "sparsity", "candidates"} <= schemas["input_schema"]["properties"].keys()
            found = client.post("/runs/wait", json={"assistant_id": "search", "input": asked(model)}).json()
    finally:
        server.terminate()
        server.wait()
    assert found["stop"] == "8 evaluations are used up", (tmp_path / "log").read_text()[-3000:]
    assert {"dense", "uniform", "found"} <= {row["name"] for row in found["rows"]}
    assert RunDirectory.open(tmp_path / found["directory"]).status == "finished"


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ok").is_success
    except httpx.TransportError:
        return False
