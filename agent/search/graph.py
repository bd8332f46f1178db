"""The graph: think -> act -> judge, until the judge ends the run.

`think` is the brain, `act` LangGraph's ToolNode with the four tools, `judge` a deterministic rule. The state is written
to SQLite after every node, so a run that is killed goes on with the node it was in; tools are repeatable, so what they
had done of it counts and nothing is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
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

from self_pruner.agent.run_files.trace import Act, Judge, TraceRecord
from self_pruner.agent.search.schedule import stop_reason
from self_pruner.agent.search.state import SearchState, answers, first_state, fold
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import RunDirectoryError, ToolError
from self_pruner.tools.benchmark_latency import benchmark_latency_tool
from self_pruner.tools.evaluate import evaluate_tool
from self_pruner.tools.prune_model import prune_model_tool
from self_pruner.tools.record_population import record_population_tool
from self_pruner.tools.workbench import Workbench

STEP_LIMIT = 1_000_000  # LangGraph's own limit is out of the way: the judge ends runs


def build_graph(bench: Workbench, thinker: Thinker, judge: Judgement, saver: BaseCheckpointSaver) -> CompiledStateGraph:
    """The search as a graph."""
    tools = [
        prune_model_tool(bench),
        evaluate_tool(bench),
        benchmark_latency_tool(bench),
        record_population_tool(bench),
    ]
    act = ToolNode(tools, handle_tool_errors=tool_error, wrap_tool_call=Recorder(thinker.trace))
    graph = StateGraph(SearchState)
    graph.add_node("think", thinker)
    graph.add_node("act", act)
    graph.add_node("judge", judge)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", after_think)
    graph.add_edge("act", "judge")
    graph.add_conditional_edges("judge", after_judge, ["think", END])
    return graph.compile(checkpointer=saver)


def after_think(state: SearchState) -> Literal["act", "judge"]:
    """A turn without a call has nothing to act on."""
    return "act" if state["messages"][-1].tool_calls else "judge"  # type: ignore[union-attr]


def after_judge(state: SearchState) -> str:
    """On with the search until there is a reason to stop."""
    return END if state["stop"] else "think"


def tool_error(error: ToolError) -> str:
    """What the brain reads of an error it can do something about; any other one ends the process."""
    return str(error)


@dataclass
class Recorder:
    """Writes every tool call to the trace."""

    trace: Callable[[TraceRecord], None]

    def __call__(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
        """Carry out the call, time it, and record what it answered."""
        start = time.perf_counter()
        message: ToolMessage = execute(request)
        state: SearchState = request.state
        call = request.tool_call
        failed = message.status == "error"
        turn = {**state, "messages": [state["messages"][0], message]}
        result = {} if failed else answers(turn)[0].result  # type: ignore[arg-type]
        made = result.get("candidates", [])
        self.trace(
            Act(
                step=state["step"],
                call=int(str(call["id"]).rpartition(".")[2]),
                tool=call["name"],
                arguments=call["args"],
                result=result or None,
                repair=sum(row["repaired_units"] for row in made if not row["known"]),
                tokens=int(result.get("charged_tokens", 0)),
                seconds=time.perf_counter() - start,
                error=str(message.content) if failed else None,
            )
        )
        return message


@dataclass
class Judgement:
    """The `judge` node: folds the turn's answers into the state and says whether the run ends."""

    bench: Workbench
    settings: Settings
    trace: Callable[[TraceRecord], None]
    mark: float = field(default_factory=time.perf_counter)  # when the time not yet accounted for began

    def __call__(self, state: SearchState) -> dict[str, Any]:
        update = fold(state, self.bench.fidelity[0])
        now = time.perf_counter()
        update["seconds"] = state["seconds"] + now - self.mark
        self.mark = now
        after: SearchState = {**state, **update}  # type: ignore[typeddict-item]
        update["stop"] = after["stop"] = stop_reason(self.settings, after)
        best = self.bench.candidate(after["best"]) if after["best"] else None
        found = self.bench.fitness(best.profile, self.bench.fidelity[-1]) if best else None
        self.trace(
            Judge(
                step=after["step"],
                generation=after["generation"],
                spent={
                    "evaluations": after["evaluations"],
                    "tokens": after["tokens"],
                    "brain_tokens": after["brain_tokens"],
                    "minutes": round(after["seconds"] / 60, 3),
                },
                best=best.id if best else None,
                fitness=found.kl if found else None,
                stop=after["stop"] or None,
            )
        )
        return update


def search(
    graph: CompiledStateGraph, seeds: list[str], tokens: int, control: RunControl, thread: str
) -> SearchState | None:
    """Run the graph to its end, or on from where it was; None where it was asked to stop before.

    Args:
        graph: from `build_graph`.
        seeds: ids of the first candidates, used only by a new run.
        tokens: evaluated tokens spent on probes, used only by a new run.
        control: asked to drain on Ctrl-C; the state is then complete up to the last node.
        thread: the run's name.

    Raises:
        RunDirectoryError: the run was begun by a version that kept another state.
    """
    config: RunnableConfig = {
        "configurable": {"thread_id": thread},
        "recursion_limit": STEP_LIMIT,
        "max_concurrency": 1,  # there is one model
    }
    known = graph.get_state(config).values
    if known and not known.keys() >= SearchState.__annotations__.keys():
        raise RunDirectoryError(
            "the run's checkpoint.sqlite is of an older format: its search cannot go on, start anew"
        )
    begin = None if known else first_state(seeds, tokens)
    try:
        for _ in graph.stream(begin, config, durability="sync", control=control):
            pass
    except GraphDrained:
        return None
    return graph.get_state(config).values  # type: ignore[return-value]
