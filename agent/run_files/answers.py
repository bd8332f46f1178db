"""What the four tools answer, as the trace keeps it: whether an answer is one, before anybody counts what is in it.

A trace is a file that may be damaged, and a line may be valid JSON and no answer of a tool all the same.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from self_pruner.agent.run_files.trace import Act


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)  # what is not counted may be anything


class _Made(_Answer):
    id: str
    known: bool


class _Pruned(_Answer):
    candidates: list[_Made]


class _Change(_Answer):
    mean: float


class _Failed(_Answer):
    id: str
    status: Literal["failed"]


class _Measured(_Answer):
    id: str
    status: Literal["ok"]
    fitness: float
    change: list[_Change] = []


class _Evaluated(_Answer):
    fidelity: int
    results: list[_Measured | _Failed]


class _Lesson(_Answer):
    verdict: str
    amount: str
    take: str
    give: str
    expected: str
    change: float
    error: float


class _Recorded(_Answer):
    generation: int
    survivors: list[str]
    best: str
    lessons: list[_Lesson] = []


_ANSWERS: dict[str, type[_Answer]] = {"prune_model": _Pruned, "evaluate": _Evaluated, "record_population": _Recorded}


def is_answer(act: Act) -> bool:
    """Whether a call has an answer that is what its tool says; a call that failed has none."""
    try:
        _ANSWERS.get(act.tool, _Answer).model_validate(act.result)
    except ValidationError:
        return False
    return True
