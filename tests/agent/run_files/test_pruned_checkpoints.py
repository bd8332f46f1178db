"""Only the newest checkpoint stays: enough to resume, whatever the clock says, and no more for a longer search."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.checkpoints import keep_newest
from tests.agent.search.test_search import Search

CONFIG = {"configurable": {"thread_id": "run", "checkpoint_ns": ""}}


class Number(TypedDict):
    number: int


@pytest.fixture
def saver(tmp_path):
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite", check_same_thread=False)) as connection:
        yield keep_newest(SqliteSaver(connection))


def put(saver, number, config=CONFIG, writes=1):
    """A checkpoint with that id, and the writes of as many tasks on top of it."""
    checkpoint = {**empty_checkpoint(), "id": f"{number:03}", "channel_values": {"number": number}}
    there = saver.put(config, checkpoint, {"source": "loop", "step": number}, {})
    for task in range(writes):
        saver.put_writes(there, [("number", number)], f"task {task}")
    return there


def rows(saver):
    return {
        table: [found for (found,) in saver.conn.execute(f"SELECT checkpoint_id FROM {table} ORDER BY 1")]
        for table in ("checkpoints", "writes")
    }


def test_the_newest_checkpoint_stays_with_its_pending_writes_and_no_other(saver):
    config = CONFIG
    for number in range(5):
        config = put(saver, number, config, writes=2)
    assert rows(saver) == {"checkpoints": ["004"], "writes": ["004", "004"]}
    found = saver.get_tuple(CONFIG)
    assert found.checkpoint["channel_values"] == {"number": 4}
    assert [value for _, _, value in found.pending_writes] == [4, 4]


def test_other_threads_are_left_alone(saver):
    put(saver, 1)
    put(saver, 2, {"configurable": {"thread_id": "other", "checkpoint_ns": ""}})
    assert rows(saver)["checkpoints"] == ["001", "002"]


def test_a_clock_that_was_set_back_does_not_bring_an_old_state_back(saver):
    put(saver, 7)
    put(saver, 3)  # ids begin with the time
    assert saver.get_tuple(CONFIG).checkpoint["channel_values"] == {"number": 3}


def test_what_an_earlier_version_piled_up_goes_with_the_next_checkpoint(tmp_path):
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite", check_same_thread=False)) as connection:
        old, config = SqliteSaver(connection), CONFIG
        for number in range(5):
            config = put(old, number, config)
        saver = keep_newest(keep_newest(SqliteSaver(connection)))
        assert saver.get_tuple(CONFIG).checkpoint["channel_values"] == {"number": 4}
        put(saver, 5, config)
        assert rows(saver) == {"checkpoints": ["005"], "writes": ["005"]}


WRITER = """
import sqlite3, sys
from langgraph.checkpoint.sqlite import SqliteSaver
from self_pruner.agent.run_files.checkpoints import keep_newest
from tests.agent.run_files.test_pruned_checkpoints import CONFIG, put
saver, config = keep_newest(SqliteSaver(sqlite3.connect(sys.argv[1], check_same_thread=False))), CONFIG
for number in range(1000):
    config = put(saver, number, config)
    print(number, flush=True)
"""


@pytest.mark.parametrize("told", [1, 2, 30])
def test_a_kill_at_any_moment_leaves_one_whole_checkpoint(warm, tmp_path, told):
    path, script = tmp_path / "checkpoint.sqlite", tmp_path / "writer.py"
    script.write_text(WRITER)
    process = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True)
    last = [process.stdout.readline() for _ in range(told)][-1]
    process.kill()
    rest = process.communicate(timeout=60)[0].split("\n")[:-1]
    said = int(rest[-1] if rest else last)
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        saver = SqliteSaver(connection)
        assert saver.get_tuple(CONFIG).checkpoint["channel_values"]["number"] >= said
        assert len(rows(saver)["checkpoints"]) == 1


def test_a_graph_goes_on_from_the_one_checkpoint_that_stays(saver):
    calls = []

    def count(state):
        calls.append(state["number"])
        if state["number"] == 3 and len(calls) == 4:
            raise RuntimeError("killed")
        return {"number": state["number"] + 1}

    graph = StateGraph(Number)
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", lambda state: END if state["number"] > 5 else "count", ["count", END])
    app = graph.compile(checkpointer=saver)
    with pytest.raises(RuntimeError, match="killed"):
        app.invoke({"number": 0}, CONFIG, durability="sync")
    assert app.invoke(None, CONFIG, durability="sync") == {"number": 6}
    assert calls == [0, 1, 2, 3, 3, 4, 5]


def test_the_checkpoints_of_a_search_do_not_grow_with_its_candidates(tmp_path):
    sizes = []
    for evaluations in (12, 36):
        (tmp_path / str(evaluations)).mkdir()
        run = Search(tmp_path / str(evaluations), UniformBrain(seed=0), evaluations=evaluations, patience=1000)
        assert run.go().evaluations == evaluations
        assert run.connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (1,)
        run.connection.close()
        sizes.append(run.checkpoint.stat().st_size)
    assert sizes[1] <= sizes[0] + 4 * 4096  # a page more or less: a state is not always as long
