"""What the brain cost and how often it failed, counted in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.result.outcome import Yield, improvements
from self_pruner.agent.run_files.answers import is_answer
from self_pruner.agent.run_files.trace import Step, Think, TraceRecord, by_step
from self_pruner.memory.records import RANDOM, Candidate, PromptUse
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest


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


def prompt_use(
    run: str,
    prompts: PromptSet,
    own: Path | None,
    brain: str,
    records: Sequence[TraceRecord],
    candidates: Sequence[Candidate],
    yields: Sequence[Yield],
) -> PromptUse:
    """What came of a prompt set in a run.

    Args:
        run: its id.
        prompts: the set.
        own: the folder whose files replaced those of the set, where there was one.
        brain: who read it.
        records: the trace.
        candidates: of the run.
        yields: what came of them.
    """
    totals, faults = brain_totals(records), brain_faults(records)
    written = [row for row in candidates if row.proposed_by == "brain"]
    compared, improved = improvements(yields, "brain")
    drawn, lucky = improvements(yields, *RANDOM)
    return PromptUse(
        run=run,
        digest=digest(prompts),
        name=own.resolve().name if own else prompts.name,
        brain=brain,
        turns=int(totals["turns"]),
        replies=sum(len(record.replies) for record in records if isinstance(record, Think)),
        illegal=int(faults["illegal"]),
        failed=int(faults["failed_turns"]),
        tokens=int(totals["input_tokens"] + totals["output_tokens"]),
        made=len(written),
        repaired=sum(row.repaired for row in written),
        compared=compared,
        improved=improved,
        chance_compared=drawn,
        chance_improved=lucky,
        step=max((record.step for record in records), default=0),
    )


def _failed(step: Step) -> bool:
    """Whether a turn failed: the brain did or a tool, or nothing was new of what the brain asked for."""
    if (step.think is not None and step.think.error) or any(act.error for act in step.acts):
        return True
    answers: list[Any] = [act.result for act in step.acts if act.tool == "prune_model" and is_answer(act)]
    known = [row["known"] for answer in answers for row in answer["candidates"]]
    return step.think is not None and bool(step.think.replies) and bool(known) and all(known)
