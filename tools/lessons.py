"""Lessons: what became of a hypothesis about a shift, by measurement.

A hypothesis is tried in several sizes, each a candidate. Its verdict is that of the best of them, in paired differences
to their parent on the same sequences: within one standard error nothing is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from self_pruner.memory.records import Candidate, Lesson, Verdict
from self_pruner.tools.profiles.selection import Paired, paired
from self_pruner.tools.profiles.shifts import Amount
from self_pruner.tools.workbench import Turn, Workbench

TIMES = ", times "  # between a hypothesis and the size that a candidate tries, in its detail
Expectation = Literal["better", "same", "worse"]


class Hypothesis(BaseModel):
    """A shift, and what is expected of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    take: str
    give: str
    amount: Amount = "some"
    expect: Expectation = "better"

    def __str__(self) -> str:
        return f"{self.amount} of {self.take} to {self.give}"


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
    found = [(difference, row) for row in rows if (difference := _difference(bench, row)) is not None]
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
    if abs(found.mean) <= (found.standard_error or 0.0):
        return "held" if expected == "same" else "unclear"
    seen: Expectation = "better" if found.mean < 0 else "worse"
    return "held" if expected == seen else "failed"


def _difference(bench: Workbench, row: Candidate) -> Paired | None:
    """The candidate less its parent, on all sequences that both were measured on; None without any."""
    own = bench.scores(row.profile)
    parent = bench.scores(bench.candidate(row.parents[0]).profile)
    pairs: Sequence[tuple[float, float]] = [
        (mine.kl, theirs.kl)
        for index, mine in own.items()
        if index in parent and mine.kl is not None and (theirs := parent[index]).kl is not None
    ]
    return paired([mine for mine, _ in pairs], [theirs for _, theirs in pairs]) if len(pairs) > 1 else None
