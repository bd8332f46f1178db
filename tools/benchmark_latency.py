"""`benchmark_latency`: what a candidate gains in milliseconds, measured against the dense model in the same minute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, Field

from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Latency
from self_pruner.tools.latency.measure import device_in_words, measure
from self_pruner.tools.workbench import LatencyEngine, Turn, Workbench

WITHOUT_GRAPHS = "without_cuda_graphs"  # in the values of a latency that was launched one by one for want of them


class LatencyArguments(BaseModel):
    """Arguments of `benchmark_latency`."""

    candidate: str = Field(description="id of the candidate to time")


def benchmark_latency_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `benchmark_latency` on `bench`."""

    @tool("benchmark_latency", args_schema=LatencyArguments)
    def benchmark_latency(candidate: str, runtime: ToolRuntime) -> str:
        """Time a candidate against the dense model: prefill and decode milliseconds, tokens a second."""
        turn = Turn.of(runtime.state, runtime.tool_call_id or "")
        latency = timed(bench, bench.candidate(candidate).profile, turn.step)
        figures = {name: round(value, 4) for name, value in latency.values.items()}
        return json.dumps({"id": candidate, "engine": bench.engine.name, **figures})

    return benchmark_latency


def timed(bench: Workbench, profile: Profile, step: int) -> Latency:
    """The latency of `profile`: `timed_all` of one."""
    return timed_all(bench, [profile], step)[profile]


def timed_all(
    bench: Workbench, profiles: Sequence[Profile], step: int, engine: LatencyEngine | None = None
) -> dict[Profile, Latency]:
    """The latencies of some profiles, from the memory where this run measured them, else measured now and recorded.

    Those of `engine`, which is that of the bench where none is given.

    Milliseconds of another day are not those of now, so other runs' are left alone. An engine that is not this process
    is started once for all of them.
    """
    engine = engine or bench.engine
    known = timed_already(bench, engine)
    found = {profile: known[profile] for profile in profiles if profile in known}
    missing = [profile for profile in dict.fromkeys(profiles) if profile not in found]
    if not missing:
        return found
    with engine.timing() if engine.timing else nullcontext(None) as timer:
        for profile in missing:
            report = timer(profile) if timer else measure(bench.elastic, profile, **bench.latency)
            values = {name: value for name, value in vars(report).items() if isinstance(value, float)}
            if report.graph_fault:
                values[WITHOUT_GRAPHS] = 1.0
                bench.elastic.warnings.append(f"CUDA graphs could not be captured: {report.graph_fault}")
            found[profile] = Latency(profile, _setting_of_run(bench, engine), values, bench.run, step)
            bench.memory.record(found[profile])
    return found


def timed_already(bench: Workbench, engine: LatencyEngine | None = None) -> dict[Profile, Latency]:
    """What this run has timed, in the setting of `bench` and in `engine`, else that of the bench."""
    setting = _setting_of_run(bench, engine or bench.engine)
    return {latency.profile: latency for latency in bench.memory.recall(Latency, setting=setting)}


def without_graphs(bench: Workbench) -> list[str]:
    """A sentence where models of this run were timed without the CUDA graphs that were meant; else nothing."""
    timed = timed_already(bench).values()
    count = sum(WITHOUT_GRAPHS in latency.values for latency in timed)
    if not count:
        return []
    return [f"{count} of {len(timed)} profiles were timed without CUDA graphs: their latency is that of launches"]


def latency_setting(bench: Workbench, engine: LatencyEngine) -> str:
    """What a latency depends on besides the profile, as text: also which engine it is of."""
    return _setting(device_in_words(bench.device_name), bench, engine)


def _setting_of_run(bench: Workbench, engine: LatencyEngine) -> str:
    return f"{_setting(bench.device_name, bench, engine)}, run {bench.run}"


def _setting(device: str, bench: Workbench, engine: LatencyEngine) -> str:
    numbers = (f"{name} {value}" for name, value in sorted(bench.latency.items()))
    return ", ".join([device, engine.name, *numbers])
