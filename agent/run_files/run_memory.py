"""The memory that a run works with: its own file in the run directory, then the one that it shares with other runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.view import View
from self_pruner.memory.errors import MemoryFileError, RunDirectoryError
from self_pruner.memory.no_links import refuse_link
from self_pruner.memory.records import Candidate
from self_pruner.memory.run_records import RunRecords
from self_pruner.memory.store import Memory


def memory_of(
    path: Path, run: str, records: Path | None, context: str, description: Mapping[str, object], view: View
) -> Memory:
    """Open the memory at `path` and, where a run has one, the run's own file before it; both are to be closed.

    A run that has its own file goes on without a memory that cannot be used, which is said; so is what one of the two
    was given of the other.

    Args:
        path: the memory that runs share.
        run: by which the memory knows the run.
        records: the run's own file; None for what belongs to no run directory.
        context: as for a memory.
        description: as for a memory.
        view: where it is said.

    Raises:
        LinkError: a link lies in the place of the run's file; the memory, which the user names, may be one.
        MemoryFileError: the run's file cannot be used, or there is none yet and the memory cannot be used.
    """
    if records is None:
        return Memory(path, context, description)
    refuse_link(records)
    shared = None
    try:
        shared = Memory(path, context, description, durable=False)
    except MemoryFileError as error:
        if not records.exists():
            raise
        view.warn(f"{error}; the run goes on with its own {records.name}, which fills a memory that can be used again")
    try:
        memory = RunRecords(records, run, context, description, shared)
    except BaseException:
        if shared is not None:
            shared.close()
        raise
    if memory.filled:
        view.line(f"The run had no {records.name} yet: {memory.filled} records were copied from the memory {path}")
    if memory.restored:
        view.line(f"The memory {path} lacked {memory.restored} records of this run and has them again")
    return memory


def check_whole(memory: Memory, run: RunDirectory) -> None:
    """Refuse to go on with a run of which only half is left: what it made, or where its search was.

    A checkpoint without a byte says of no search where it was: LangGraph Studio, which keeps that itself, leaves one.

    Raises:
        RunDirectoryError: says what is gone.
    """
    made = memory.recall(Candidate, run=run.id, order="-step", limit=1)
    placed = run.checkpoint.exists() and run.checkpoint.stat().st_size > 0
    if not made and placed:
        raise RunDirectoryError(
            f"the run {run.path} cannot be resumed: neither its own {run.records.name} nor the memory "
            f"{memory.shared.path} has its candidates; put one of them back or start a new run"
        )
    if made and made[0].step > 0 and not placed:
        gone = "empty" if run.checkpoint.exists() else "gone"
        raise RunDirectoryError(
            f"the run {run.path} cannot be resumed: its {run.checkpoint.name}, which says where the search was, is "
            f"{gone}; start a new run with the same memory: what this one measured is not measured again"
        )
