"""LangChain's own standard tests of tools, which the four tools pass.

A tool is called as the graph calls it: with the state of a search, whose last message holds the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from langgraph.prebuilt import ToolRuntime

from self_pruner.agent.search.state import first_state
from self_pruner.tools.benchmark_latency import benchmark_latency_tool
from self_pruner.tools.evaluate import evaluate_tool, measure
from self_pruner.tools.prune_model import prune_model_tool
from self_pruner.tools.record_population import record_population_tool
from self_pruner.tools.workbench import Workbench
from tests.bench import LENGTH, founded_bench, tiny_settings

CALL = "123"  # the id that the tests give to their calls


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workbench and its first candidates, measured."""
    bench, starting = founded_bench(tmp_path_factory.mktemp("bench"), tiny_settings())
    measure(bench, [bench.candidate(name).profile for name in starting], range(bench.fidelity[-1] // LENGTH), step=1)
    return bench, starting


class OnABench:
    """Makes the tool and an example of a call; subclasses say which."""

    tool_constructor: Any = None
    tool_invoke_params_example: dict[str, Any] = {}
    make: Callable[[Workbench], BaseTool]
    example: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _bench(self, made: tuple[Workbench, list[str]]) -> None:
        bench, starting = made
        self.tool_constructor = type(self).make(bench)
        example = {"survivors": starting, **self.example} if "note" in self.example else self.example
        spoken = AIMessage("", tool_calls=[{"name": self.tool_constructor.name, "args": example, "id": CALL}])
        state = replace(first_state(starting, 0), step=1, messages=[spoken])
        runtime = ToolRuntime(state, None, {}, lambda _: None, CALL, None)
        self.tool_invoke_params_example = {**example, "runtime": runtime}


class PruneModel(OnABench):
    make = staticmethod(prune_model_tool)
    example = {"operator": "mutation", "parents": ["c1"], "edits": [{"layer": 0, "part": "mlp", "change": -1}]}


class Evaluate(OnABench):
    make = staticmethod(evaluate_tool)
    example = {"candidates": ["c1"], "fidelity": 2 * LENGTH}


class BenchmarkLatency(OnABench):
    make = staticmethod(benchmark_latency_tool)
    example = {"candidate": "c1"}


class RecordPopulation(OnABench):
    make = staticmethod(record_population_tool)
    example = {"note": "a note"}


class TestPruneModelUnit(PruneModel, ToolsUnitTests): ...


class TestPruneModelIntegration(PruneModel, ToolsIntegrationTests): ...


class TestEvaluateUnit(Evaluate, ToolsUnitTests): ...


class TestEvaluateIntegration(Evaluate, ToolsIntegrationTests): ...


class TestBenchmarkLatencyUnit(BenchmarkLatency, ToolsUnitTests): ...


class TestBenchmarkLatencyIntegration(BenchmarkLatency, ToolsIntegrationTests): ...


class TestRecordPopulationUnit(RecordPopulation, ToolsUnitTests): ...


class TestRecordPopulationIntegration(RecordPopulation, ToolsIntegrationTests): ...
