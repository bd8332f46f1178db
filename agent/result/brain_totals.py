"""What the trace tells of a search in figures: the brain's cost and faults, who proposed what, and what it was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from self_pruner.agent.result.outcome import Yield, improvements
from self_pruner.agent.run_files.answers import is_answer
from self_pruner.agent.run_files.trace import Act, Step, Think, TraceRecord, by_step
from self_pruner.memory.records import Candidate, Generation, PromptUse, Proposer
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest

PROPOSERS = get_args(Proposer)


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
    improved, compared, lucky, drawn = improvements(yields)
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


def choices(
    records: Sequence[TraceRecord], candidates: Sequence[Candidate], first_fidelity: int
) -> list[tuple[int, int, int, int]]:
    """By generation: of the brain's variations those that improved and those compared, then of random ones."""
    found = map(improvements, yields_by_generation(records, candidates, first_fidelity).values())
    return [counts for counts in found if counts[1] or counts[3]]


def yields(
    records: Sequence[TraceRecord],
    candidates: Sequence[Candidate],
    first_fidelity: int,
    generations: Sequence[Generation] = (),
) -> list[Yield]:
    """Who proposed how many candidates, and what came of them, from the trace and the closed generations."""
    return _yields(candidates, _changes(records, first_fidelity), generations)


def yields_by_generation(
    records: Sequence[TraceRecord],
    candidates: Sequence[Candidate],
    first_fidelity: int,
    generations: Sequence[Generation] = (),
) -> dict[int, list[Yield]]:
    """The same of every generation, in their order."""
    changes = _changes(records, first_fidelity)
    rows: dict[int, list[Candidate]] = {}
    for row in candidates:
        rows.setdefault(row.generation, []).append(row)
    return {number: _yields(rows[number], changes, generations) for number in sorted(rows)}


def _changes(records: Sequence[TraceRecord], first_fidelity: int) -> dict[str, float]:
    """By candidate: its fitness above that of its better parent, on the first fidelity, where both were measured."""
    changes: dict[str, float] = {}
    for record in records:
        if isinstance(record, Act) and record.tool == "evaluate" and is_answer(record):
            answer: Any = record.result
            if answer["fidelity"] != first_fidelity:
                continue
            for result in answer["results"]:
                if result.get("change"):
                    # against the better parent: the one that leaves the least improvement
                    changes[str(result["id"])] = max(change["mean"] for change in result["change"])
    return changes


def _yields(
    candidates: Sequence[Candidate], changes: Mapping[str, float], generations: Sequence[Generation]
) -> list[Yield]:
    kinds: dict[tuple[str, str], list[Candidate]] = {}
    for row in candidates:
        kinds.setdefault((row.proposed_by, row.operator), []).append(row)
    survivors = {(one.number, name) for one in generations for name in one.survivors}
    found = []
    for name, operator in sorted(kinds, key=lambda kind: (PROPOSERS.index(kind[0]), kind[1])):
        own = kinds[name, operator]
        compared = [changes[row.id] for row in own if row.id in changes]
        found.append(
            Yield(
                proposed_by=name,
                operator=operator,
                made=len(own),
                compared=len(compared),
                improved=sum(change < 0 for change in compared),
                survived=sum((row.generation, row.id) in survivors for row in own),
            )
        )
    return found
