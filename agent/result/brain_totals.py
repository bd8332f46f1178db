"""What the brain cost, how often it failed and what a person told it, from the trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from self_pruner.agent.run_files.answers import is_answer
from self_pruner.agent.run_files.trace import Step, Think, TraceRecord, by_step


def brain_totals(records: Sequence[TraceRecord]) -> dict[str, float]:
    """What the brain cost: turns, tokens read and written, decode steps, seconds."""
    thinks = [record for record in records if isinstance(record, Think) and record.replies]
    return {
        "turns": len(thinks),
        "input_tokens": sum(record.input_tokens for record in thinks),
        "output_tokens": sum(record.output_tokens for record in thinks),
        "decode_steps": sum(record.decode_steps for record in thinks),
        "seconds": round(sum(record.seconds for record in thinks), 1),
    }


def brain_faults(records: Sequence[TraceRecord]) -> dict[str, float]:
    """Failed turns, turns in which random profiles stood in, and illegal replies."""
    thinks = [record for record in records if isinstance(record, Think)]
    return {
        "failed_turns": sum(map(_failed, by_step(records).values())),
        "fallbacks": sum(record.fallback for record in thinks),
        "illegal": sum(record.illegal for record in thinks),
    }


def notes_read(records: Sequence[TraceRecord]) -> list[str]:
    """The notes of a person that the brain read, in order."""
    return [note for record in records if isinstance(record, Think) for note in record.told]


def _failed(step: Step) -> bool:
    """Whether a turn failed: the brain did or a tool, or nothing was new of what the brain asked for."""
    if (step.think is not None and step.think.error) or any(act.error for act in step.acts):
        return True
    answers: list[Any] = [act.result for act in step.acts if act.tool == "prune_model" and is_answer(act)]
    known = [row["known"] for answer in answers for row in answer["candidates"]]
    return step.think is not None and bool(step.think.replies) and bool(known) and all(known)
