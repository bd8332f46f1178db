"""A checkpoint is data: nothing in it is ever imported or called, and what no search writes is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from main import main
from self_pruner.agent.run_files.checkpoints import StrictSerializer
from self_pruner.memory.errors import RunDirectoryError
from tests.stopped import copied, stopped_run


def call(code, *named):
    """An extension of msgpack that LangGraph's own serialiser carries out."""
    return ormsgpack.Ext(code, ormsgpack.packb(named))


def packed(value):
    return ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)


@pytest.fixture(scope="module")
def stopped(model, cache, tmp_path_factory) -> Path:
    return stopped_run(tmp_path_factory.mktemp("runs"), model, cache)


@pytest.mark.parametrize("table", ["checkpoints", "writes"])
def test_a_program_in_a_runs_checkpoint_is_refused_and_not_run(stopped, tmp_path, capfd, table):
    run, marker = copied(stopped, tmp_path), tmp_path / "was-run"
    payload = packed({"x": call(0, "os", "system", f"touch {marker}")})
    column = "checkpoint" if table == "checkpoints" else "value"
    with closing(sqlite3.connect(run / "checkpoint.sqlite")) as connection, connection:
        if table == "writes":  # such as a node that was killed leaves, of the newest checkpoint
            connection.execute(
                "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel) "
                "SELECT thread_id, checkpoint_ns, checkpoint_id, 'task', 0, 'step' FROM checkpoints "
                "ORDER BY checkpoint_id DESC LIMIT 1"
            )
        connection.execute(f"UPDATE {table} SET type = 'msgpack', {column} = ?", [payload])
    status = main(["resume", str(run)])
    error = capfd.readouterr().err
    assert not marker.exists()
    assert status == 2 and "holds os.system, which no search writes" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (("msgpack", packed([call(1, "subprocess", "run", [["true"]])])), "subprocess.run"),
        (("msgpack", packed(call(2, "builtins", "dict", {"a": 1}))), "builtins.dict"),
        (("msgpack", packed(call(3, "pathlib", "Path", "/", "rmdir"))), "pathlib.Path"),
        (("msgpack", packed(call(4, "langchain_core.messages.ai", "AIMessage", {"content": ""}))), "AIMessage"),
        (("msgpack", packed(call(5, "langchain_core.messages.ai", "AIMessage", {"content": 7}))), "AIMessage"),
        (
            ("msgpack", packed(call(5, "self_pruner.agent.settings.settings", "Settings", {}))),
            "self_pruner.agent.settings.settings.Settings",
        ),
        (("msgpack", packed(call(5, ["agent"], "Settings", {}))), "which no search writes"),
        (("msgpack", packed(call(5))), "something unknown"),
        (("msgpack", packed(ormsgpack.Ext(6, b"\xc1"))), "something unknown"),
        (("msgpack", b"\x91" * 5000), "is damaged"),
        (("msgpack", b"\xc1"), "is damaged"),
        (("msgpack", b""), "is damaged"),
        (("pickle", b"cos\nsystem\n(S'true'\ntR."), "'pickle'"),
        (("json", b'{"lc": 1, "type": "constructor", "id": ["os", "system"]}'), "'json'"),
        (("bytes", b"1"), "'bytes'"),
    ],
)
def test_what_no_search_writes_is_refused(data, said):
    with pytest.raises(RunDirectoryError, match=said):
        StrictSerializer().loads_typed(data)


def test_what_a_search_writes_comes_back_as_it_was():
    turn = [
        AIMessage(content="so be it", tool_calls=[{"name": "evaluate", "args": {"candidates": ["c1"]}, "id": "3.0"}]),
        ToolMessage(content="no such candidate", tool_call_id="3.0", status="error"),
        HumanMessage(content="go on"),
    ]
    state = {"messages": turn, "step": 3, "seconds": 1.5, "best": "c1", "population": ["c1"], "stop": "", "none": None}
    strict = StrictSerializer()
    assert strict.loads_typed(strict.dumps_typed(state)) == state
    assert strict.loads_typed(strict.dumps_typed(None)) is None
