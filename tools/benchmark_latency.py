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
from self_pruner.tools.latency.measure import measure
from self_pruner.tools.workbench import Turn, Workbench


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
        return json.dumps({"id": candidate, **{name: round(value, 4) for name, value in latency.values.items()}})

    return benchmark_latency


def timed(bench: Workbench, profile: Profile, step: int) -> Latency:
    """The latency of `profile`: `timed_all` of one."""
    return timed_all(bench, [profile], step)[profile]


def timed_all(bench: Workbench, profiles: Sequence[Profile], step: int) -> dict[Profile, Latency]:
    """The latencies of some profiles, from the memory where this run measured them, else measured now and recorded.

    Milliseconds of another day are not those of now, so other runs' are left alone. An engine that is not this process
    is started once for all of them.
    """
    known = timed_already(bench)
    found = {profile: known[profile] for profile in profiles if profile in known}
    missing = [profile for profile in dict.fromkeys(profiles) if profile not in found]
    if not missing:
        return found
    with bench.timing() if bench.timing else nullcontext(None) as timer:
        for profile in missing:
            report = timer(profile) if timer else measure(bench.elastic, profile, **bench.latency)
            values = {name: value for name, value in vars(report).items() if isinstance(value, float)}
            found[profile] = Latency(profile, _setting_of_run(bench), values, bench.run, step)
            bench.memory.record(found[profile])
    return found


def timed_already(bench: Workbench) -> dict[Profile, Latency]:
    """What this run has timed, in the setting of `bench`."""
    return {latency.profile: latency for latency in bench.memory.recall(Latency, setting=_setting_of_run(bench))}


def latency_setting(bench: Workbench) -> str:
    """What a latency depends on besides the profile, as text."""
    engine = [bench.engine] if bench.engine else []
    return ", ".join(
        [bench.device_name, *engine, *(f"{name} {value}" for name, value in sorted(bench.latency.items()))]
    )


def _setting_of_run(bench: Workbench) -> str:
    return f"{latency_setting(bench)}, run {bench.run}"
