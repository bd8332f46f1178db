"""A population walk that workers carry out, each over some of the sequences or some of the candidates.

Sequences that pass a block together in one process do so here too, and a candidate's numbers do not depend on who walks
beside it, so scores are to the bit those of one process that computes with as many threads as a worker. All candidates
of a worker's sequences go through the layers together; only where there are fewer shares than workers is a population
divided, along its trie, so that what shares most stays together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.sharing import path
from self_pruner.tools.evaluation.targets import DenseTargets, Progress, batches_of
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.evaluation.workers.pool import Share, Workers
from self_pruner.tools.evaluation.workers.worker import Work
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.streamed import StreamedLayers


class WorkersWalk(PopulationWalk):
    """A `PopulationWalk` by workers, for whoever asks the same as any other."""

    def __init__(self, elastic: ElasticModel, targets: DenseTargets, workers: Workers, text: str) -> None:
        """Leave the walks over the text of `targets`, which the workers call `text`, to them.

        The model here tells how a population is divided, and counts what is done by all.
        """
        super().__init__(elastic, elastic.store, targets, targets.input_ids, prefix_memory=0)
        self.workers = workers
        self.text = text

    @property
    def parallelism(self) -> dict[str, float]:
        """How many workers there are, and how many were replaced so far."""
        return {"workers": self.workers.count, "workers_replaced": self.workers.replaced}

    def measure(
        self, profiles: Sequence[Profile], sequences: range, progress: Progress | None = None
    ) -> list[Measurement]:
        """As in one process; progress is in sequences."""
        (found,) = self.in_steps(profiles, sequences, len(sequences))
        if progress is not None:
            progress(len(sequences), len(sequences))
        return found

    def in_steps(self, profiles: Sequence[Profile], sequences: range, together: int) -> Iterator[list[Measurement]]:
        """As in one process; the steps are carried out side by side and answered in their order."""
        self.check(profiles, sequences)
        steps = [sequences[at : at + together] for at in range(0, len(sequences), together)]
        distinct = sorted(dict.fromkeys(profiles), key=path)
        runs = [self._runs(distinct, step) if distinct else [] for step in steps]
        groups = cut(distinct, self.workers.count // max(1, sum(map(len, runs))))
        shares = [(group, rows) for some in runs for rows in some for group in groups]
        answers = self._answers([("measure", (self.text, group, rows)) for group, rows in shares])
        for step, some in zip(steps, runs, strict=True):
            parts: dict[Profile, list[Measurement]] = {profile: [] for profile in distinct}
            for _ in range(len(some) * len(groups)):
                for one in next(answers):
                    parts[one.profile].append(one)
            yield [joined(profile, step, parts[profile]) for profile in profiles]

    def first_order(self, profile: Profile, sequences: Sequence[int]) -> Iterator[tuple[int, Costs]]:
        """As in one process."""
        shares = cut(list(sequences), self.workers.count)
        for found in self._answers([("first_order", (self.text, profile, share)) for share in shares]):
            yield from found

    def _runs(self, profiles: Sequence[Profile], step: range) -> list[range]:
        """At most one run of sequences a worker, none of which parts what passes a block together."""
        return [
            turn[batches[0].start : batches[-1].stop]
            for turn in self._turns(profiles, step)
            for batches in cut(list(batches_of(len(turn), self.targets.length)), self.workers.count)
        ]

    def _answers(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> Iterator[Any]:
        """What was found, in order; what it took is counted here."""
        shares = [Share(method, arguments, number) for number, (method, arguments) in enumerate(calls)]
        for found, work in self.workers.carry_out(shares):
            self._count(work)
            yield found

    def _count(self, work: Work) -> None:
        made, store = self.elastic.compensator, self.elastic.store
        made.factorisations += work.factorisations
        made.refits += work.refits
        made.factored |= work.factored
        made.warnings += [sentence for sentence in work.warnings if sentence not in made.warnings]
        if isinstance(store, StreamedLayers):
            store.layers_read += work.layers_read
            store.bytes_read += work.bytes_read


def cut(items: list[Any], parts: int) -> list[list[Any]]:
    """`items` in at most `parts` runs of about equal length, at least one of them and none empty; [] of nothing."""
    number = min(max(parts, 1), len(items))
    return [items[n * len(items) // number : (n + 1) * len(items) // number] for n in range(number)]


def joined(profile: Profile, sequences: range, parts: Sequence[Measurement]) -> Measurement:
    """One measurement of those on parts of `sequences`, in their order; failed where one of them is."""
    seconds = sum(part.seconds for part in parts)
    for part in parts:
        if part.error is not None:
            return Measurement(profile, sequences, (), (), 0, seconds, part.error)
    kl, nll = ([value for part in parts for value in getattr(part, name)] for name in ("kl", "nll"))
    return Measurement(profile, sequences, tuple(kl), tuple(nll), sum(part.tokens for part in parts), seconds)
