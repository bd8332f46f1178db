"""A run's own file, `records.sqlite`: the one truth about what the run made and measured.

Every fact is written here first and forced to the disk, then to the memory that runs share, which is a copy for other
runs. What an earlier run measured is copied here when this run first asks for it, so the file alone is enough to go on;
it asks once for each of its candidates, so a run that is resumed knows no more than it did.
The two are made equal whenever the file is opened: what a kill kept from the memory, or went with a memory that was
deleted, is written to it again. A run from before there was such a file gets one from the memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast, get_args

from self_pruner.memory.database import CorruptMemoryError, faults_in_words
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import (
    Candidate,
    Fact,
    Fitness,
    Generation,
    Latency,
    Lesson,
    PromptUse,
    Score,
    Sensitivities,
    TaskScore,
)
from self_pruner.memory.store import TABLES, Memory, Record, columns, key_of, upsert

RECORDS = "records.sqlite"  # in the run directory
BORROWED: tuple[type[Fact], ...] = (
    Score,
    Sensitivities,
    TaskScore,
)  # what serves other runs too; latencies name their run
KINDS: tuple[type[Fact], ...] = get_args(Fact)


class RunRecords(Memory):
    """What one run knows in one context; safe for several threads, as a memory is."""

    def __init__(
        self,
        path: Path,
        run: str,
        context: str,
        description: Mapping[str, object],
        shared: Memory | None,
        *,
        equalise: bool = True,
    ) -> None:
        """Opens the run's file at `path`, making it where there is none.

        Args:
            path: the run's own file.
            run: by which its facts are known.
            context: as for a memory.
            description: as for a memory.
            shared: the memory beside it, which is closed with it; None where it cannot be used.
            equalise: whether to make both know the same of this run; once for a run is enough.

        Raises:
            MemoryFileError: one of the two is corrupt, locked or cannot be written.
        """
        self._shared: Memory | None = None
        try:
            super().__init__(path, context, description)
        except CorruptMemoryError as error:
            raise CorruptMemoryError(
                f"the run's own file {path} is corrupt: move it away, and the run has what the memory holds of it"
            ) from error
        self.run = run
        self.filled = self.restored = 0  # facts that this file, and the memory, were given on opening
        try:
            if shared is not None and equalise:
                if self._count("main"):
                    self.restored = self._copy(shared.path, into_memory=True)
                elif shared.recall(Candidate, run=run, limit=1):  # of a new run the memory has nothing
                    self.filled = self._copy(shared.path, into_memory=False)
            self._asked = self._asked_before()  # whose measurements by other runs are here already
        except BaseException:
            super().close()
            raise
        self._shared = shared

    @property
    def shared(self) -> Memory:
        """The memory of all runs; where it cannot be used, what this one knows."""
        return self._shared or self

    def sibling(self, context: str, description: Mapping[str, object]) -> Memory:
        """The same two files in another context."""
        shared = self._shared.sibling(context, description) if self._shared else None
        return RunRecords(self.path, self.run, context, description, shared, equalise=False)

    def record(self, *facts: Fact) -> None:
        """Writes facts here, then to the memory; a kill between the two is made up for on opening.

        Raises:
            MemoryFileError: one of the two is full or cannot be written; what is here stays.
        """
        super().record(*facts)
        if self._shared is not None:
            self._shared.record(*facts)

    def recall(
        self, kind: type[Record], *, order: str | Collection[str] = (), limit: int | None = None, **equals: object
    ) -> list[Record]:
        """Reads what this run knows: its own decisions, and measurements, those of other runs by `profile`."""
        if self._shared is not None and equals.get("run") != self.run:
            self._borrow(cast(type[Fact], Score if kind is Fitness else kind), equals.get("profile"))
        return super().recall(kind, order=order, limit=limit, **equals)

    def close(self) -> None:
        super().close()
        if self._shared is not None:
            self._shared.close()

    def _forget_what_others_changed(self) -> None:
        """Nothing: the run's lock keeps other processes from writing here, and siblings write in other contexts."""

    def _asked_before(self) -> set[tuple[type[Fact], Profile]]:
        """What was asked of other runs before a stop or a kill: a search asks for the scores of all its candidates."""
        return {(Score, row.profile) for row in super().recall(Candidate, run=self.run)}

    def _borrow(self, kind: type[Fact], profile: object) -> None:
        """Copies what other runs measured of a profile, or of several, when they are asked for the first time."""
        if kind not in BORROWED or profile is None or self._shared is None:
            return
        wanted = [profile] if isinstance(profile, Profile) else list(cast(Collection[Profile], profile))
        new = [one for one in wanted if (kind, one) not in self._asked]
        if not new:
            return
        found = cast(list[Fact], self._shared.recall(kind, profile=new))
        if found:
            own = {key_of(fact) for fact in cast(list[Fact], super().recall(kind, profile=new))}
            super().record(*(fact for fact in found if key_of(fact) not in own))
        self._asked.update((kind, one) for one in new)

    def _copy(self, memory: Path, *, into_memory: bool) -> int:
        """Copies facts between the two files, all or none, in every context; returns how many were not there before.

        Into the memory goes all that is here. From the memory comes what this run decided, what it measured, and what
        is known of its candidates.
        """
        source, target = ("main", "memory") if into_memory else ("memory", "main")
        with self._lock, faults_in_words(memory):
            self._connection.execute("ATTACH ? AS memory", [str(memory)])
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    before = self._count(target)
                    self._connection.execute(f"INSERT OR IGNORE INTO {target}.context SELECT * FROM {source}.context")
                    for kind in KINDS:
                        which = "true" if into_memory else _OF_RUN[kind].format(source=source)
                        rows = f"SELECT {columns(kind)} FROM {source}.{TABLES[kind]} AS told WHERE {which}"
                        sql = upsert(kind, f"{target}.{TABLES[kind]}", f"{rows} ORDER BY told.rowid")
                        self._connection.execute(sql, {} if into_memory else {"run": self.run})
                    copied = self._count(target) - before
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            finally:
                self._connection.execute("DETACH memory")
        return copied

    def _count(self, database: str) -> int:
        counts = (self._connection.execute(f"SELECT count(*) FROM {database}.{TABLES[kind]}") for kind in KINDS)
        return sum(count.fetchone()[0] for count in counts)


_DECIDED = "run = :run"
_MEASURED = (
    "run = :run OR EXISTS (SELECT 1 FROM {source}.candidate AS made "
    "WHERE made.context = told.context AND made.profile = told.profile AND made.run = :run)"
)
_OF_RUN: dict[type[Fact], str] = {
    **dict.fromkeys((Candidate, Generation, Latency, Lesson, PromptUse), _DECIDED),
    **dict.fromkeys(BORROWED, _MEASURED),
}
