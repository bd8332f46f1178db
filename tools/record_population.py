"""`record_population`: closes a generation with its survivors, its lessons and the brain's note to its future self.

A lesson is what became of a hypothesis about a shift. It was tried in several sizes, each a candidate. Its verdict is
that of the best of them, in paired differences to their parent on the same sequences: within one standard error nothing
is told apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, Field

from self_pruner.memory.errors import ToolError
from self_pruner.memory.records import Candidate, Generation, Lesson, Verdict
from self_pruner.tools.profiles.selection import Paired, rank
from self_pruner.tools.profiles.shifts import TIMES, Expectation, Hypothesis, what_came
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


def lessons_of(bench: Workbench, hypotheses: Sequence[Mapping[str, str]], turn: Turn) -> list[Lesson]:
    """What the open generation taught about each of its hypotheses of which a candidate was measured."""
    every = [row for row in bench.memory.recall(Candidate, run=bench.run) if row.generation == turn.generation]
    found = []
    for number, values in enumerate(hypotheses):
        hypothesis = Hypothesis.model_validate(values)
        rows = [row for row in every if row.parents and row.detail.split(TIMES)[0] == str(hypothesis)]
        if lesson := _lesson(bench, number, hypothesis, rows, turn):
            found.append(lesson)
    return found


def _lesson(
    bench: Workbench, number: int, hypothesis: Hypothesis, rows: Sequence[Candidate], turn: Turn
) -> Lesson | None:
    parents = {row.id: bench.candidate(row.parents[0]).profile for row in rows}
    differences = [(bench.difference(row.profile, parents[row.id]), row) for row in rows]
    found = [(difference, row) for difference, row in differences if difference is not None and difference.n > 1]
    if not found:
        return None
    best, row = min(found, key=lambda pair: (-pair[0].n, pair[0].mean))  # those measured on most tokens
    return Lesson(
        run=bench.run,
        generation=turn.generation,
        number=number,
        take=hypothesis.take,
        give=hypothesis.give,
        amount=hypothesis.amount,
        expected=hypothesis.expect,
        verdict=verdict(hypothesis.expect, best),
        change=best.mean,
        error=best.standard_error or 0.0,
        evidence=tuple(row.id for _, row in found),
        params=row.params,
        step=turn.step,
    )


def verdict(expected: Expectation, found: Paired) -> Verdict:
    """Whether what was expected is what was found: held, failed, or not told."""
    seen = what_came(found.mean, found.standard_error)
    if seen == expected:
        return "held"
    return "unclear" if seen == "same" else "failed"
