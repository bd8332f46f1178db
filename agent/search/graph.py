"""The graph: think -> act -> judge, until the judge ends the run.

`think` is the brain, `act` LangGraph's ToolNode with the four tools, `judge` a deterministic rule. The state is written
to SQLite after every node, so a run that is killed goes on with the node it was in; tools are repeatable, so what they
had done of it counts and nothing is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import RunControl

from self_pruner.agent.run_files.trace import Act, TraceRecord
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.planning.recall_candidates import recall_candidates_tool
from self_pruner.agent.search.state import Answer, SearchState, first_state
from self_pruner.agent.search.think import Thinker
from self_pruner.memory.errors import RunDirectoryError, ToolError
from self_pruner.tools.benchmark_latency import benchmark_latency_tool
from self_pruner.tools.evaluate import evaluate_tool
from self_pruner.tools.prune_model import prune_model_tool
from self_pruner.tools.record_population import record_population_tool
from self_pruner.tools.workbench import Workbench

SINCE = {"told", "ending"}  # fields of the state that older runs lack, and whose default is right for them
STEP_LIMIT = 1_000_000  # LangGraph's own limit is out of the way: the judge ends runs


def build_graph(think: Thinker, judge: Judgement, saver: BaseCheckpointSaver) -> CompiledStateGraph:
    """The search as a graph."""
    return wired(think, act(think.bench, Recorder(think.trace)), judge).compile(checkpointer=saver)


def wired(think: Any, act: Any, judge: Any) -> StateGraph:
    """The three nodes and what leads from one to the next."""
    graph = StateGraph(SearchState)
    graph.add_node("think", think)
    graph.add_node("act", act)
    graph.add_node("judge", judge)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", after_think)
    graph.add_edge("act", "judge")
    graph.add_conditional_edges("judge", after_judge, ["think", END])
    return graph


def act(bench: Workbench, recorder: Recorder | None = None) -> ToolNode:
    """The `act` node: carries out the calls of a turn with the four tools, or looks something up for a free brain."""
    tools = [
        prune_model_tool(bench),
        evaluate_tool(bench),
        benchmark_latency_tool(bench),
        record_population_tool(bench),
        recall_candidates_tool(bench),
    ]
    return ToolNode(tools, handle_tool_errors=tool_error, wrap_tool_call=recorder)


def after_think(state: SearchState) -> Literal["act", "judge"]:
    """A turn without a call has nothing to act on."""
    return "act" if state.messages[-1].tool_calls else "judge"  # type: ignore[union-attr]


def after_judge(state: SearchState) -> str:
    """On with the search until there is a reason to stop."""
    return END if state.stop else "think"


def tool_error(error: Exception) -> str:
    """What the brain reads of an error it can do something about; any other one ends the process.

    The annotation is what LangGraph goes by. It hands over whatever a recorded call raises all the same, so a narrower
    one would turn a fault into an answer, and the search would ask again without end.
    """
    if not isinstance(error, ToolError):
        raise error
    return str(error)


@dataclass
class Recorder:
    """Writes every tool call to the trace."""

    trace: Callable[[TraceRecord], None]

    def __call__(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
        """Carry out the call, time it, and record what it answered."""
        start = time.perf_counter()
        message: ToolMessage = execute(request)
        call = request.tool_call
        answer = Answer.of(call, message)
        made = answer.result.get("candidates", [])
        self.trace(
            Act(
                step=request.state.step,
                call=int(str(call["id"]).rpartition(".")[2]),
                tool=answer.tool,
                arguments=answer.arguments,
                result=answer.result or None,
                repair=sum(row["repaired_units"] for row in made if not row["known"]),
                tokens=int(answer.result.get("charged_tokens", 0)),
                seconds=time.perf_counter() - start,
                error=answer.error,
            )
        )
        return message


def search(
    graph: CompiledStateGraph,
    seeds: list[str],
    tokens: int,
    control: RunControl,
    thread: str,
    before_turn: Callable[[], None] = lambda: None,
) -> SearchState | None:
    """Run the graph to its end, or on from where it was; None where it was asked to stop before.

    Args:
        graph: from `build_graph`.
        seeds: ids of the first candidates, used only by a new run.
        tokens: evaluated tokens spent on probes, used only by a new run.
        control: asked to drain on Ctrl-C; the state is then complete up to the last node.
        thread: the run's name.
        before_turn: called before every turn, which waits until it returns.

    Raises:
        RunDirectoryError: the run was begun by a version that kept another state.
    """
    config: RunnableConfig = {
        "configurable": {"thread_id": thread},
        "recursion_limit": STEP_LIMIT,
        "max_concurrency": 1,  # there is one model
    }
    snapshot = graph.get_state(config)
    # asked to stop before the first node ran, a search leaves its input alone, which is no state to go on from
    known = snapshot.values if (snapshot.metadata or {}).get("step", -1) >= 0 else {}
    if known and not known.keys() >= {one.name for one in fields(SearchState)} - SINCE:
        raise RunDirectoryError(
            "the run's checkpoint.sqlite is of an older format: its search cannot go on, start anew"
        )
    begin = None if known else vars(first_state(seeds, tokens))  # plain values, all that a checkpoint may hold
    try:
        before_turn()
        for update in graph.stream(begin, config, durability="sync", control=control):
            if "judge" in update and not update["judge"]["stop"]:
                before_turn()
                if control.drain_requested:  # LangGraph has looked already, and would begin one more node
                    return None
    except GraphDrained:
        return None
    return SearchState(**graph.get_state(config).values)
