"""`record_population`: closes a generation with its survivors and a note from the brain to its future self."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, Field

from self_pruner.memory.errors import ToolError
from self_pruner.memory.records import Generation
from self_pruner.tools.lessons import lessons_of
from self_pruner.tools.profiles.selection import rank
from self_pruner.tools.workbench import Turn, Workbench


class PopulationArguments(BaseModel):
    """Arguments of `record_population`."""

    survivors: list[str] = Field(min_length=1, description="ids of the parents of the next generation, best first")
    note: str = Field("", description="a note to your future self")


def record_population_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `record_population` on `bench`."""

    @tool("record_population", args_schema=PopulationArguments)
    def record_population(survivors: list[str], note: str, runtime: ToolRuntime) -> str:
        """Close the generation: its survivors are the next parents, the note is shown to you again."""
        state: Any = runtime.state  # of a search
        turn = Turn.of(state, runtime.tool_call_id or "")
        if len(set(survivors)) < len(survivors):
            raise ToolError(f"each survivor can be named once, got {', '.join(survivors)}")
        pool = [*turn.population, *state.offspring]
        strangers = [name for name in survivors if name not in pool]
        if strangers:
            raise ToolError(f"survivors must be of this generation, got {', '.join(strangers)}")
        fitness = {name: bench.fitness(bench.candidate(name).profile, bench.fidelity[-1]) for name in pool}
        ranked = rank({name: found.kl for name, found in fitness.items() if found and found.kl is not None})
        unmeasured = [name for name in survivors if fitness[name] is None]
        if unmeasured:
            raise ToolError(f"survivors must be measured at the last fidelity, {', '.join(unmeasured)} is not")
        if ranked[0] not in survivors:
            raise ToolError(f"the best candidate, {ranked[0]}, must survive")
        kept = [name for name in ranked if name in survivors]
        note = " ".join(note.split())
        lessons = lessons_of(bench, state.hypotheses, turn)
        bench.memory.record(Generation(bench.run, turn.generation, tuple(kept), ranked[0], note, turn.step), *lessons)
        answer = {"generation": turn.generation, "survivors": kept, "best": ranked[0], "note": note}
        return json.dumps({**answer, "lessons": [asdict(lesson) for lesson in lessons]} if lessons else answer)

    return record_population
