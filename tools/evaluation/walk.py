"""The population walk: a whole population is evaluated in one pass over the layers.

The walk goes through the trie of the population's profiles (sharing.py) breadth first, one sublayer at a time. It holds
one hidden state a node of the current depth, computes every child once and lets the last child take over its parent's
memory. So offspring pay only from where they leave their siblings, or their parent where a state of it was kept
(prefixes.py), and a layer is asked from the store once for all candidates, whether it is resident or streamed.

A candidate's numbers are those it would get alone: it passes the same operations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.averages import mean, perplexity
from self_pruner.tools.evaluation.descent import Descent, state_bytes
from self_pruner.tools.evaluation.first_order import FirstOrderError, first_order_sensitivities
from self_pruner.tools.evaluation.prefixes import PrefixStates
from self_pruner.tools.evaluation.sharing import WalkCounters, trie, turns
from self_pruner.tools.evaluation.shortage import free_memory, is_out_of_memory
from self_pruner.tools.evaluation.targets import DenseTargets, Progress
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import LayerStore


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one candidate scored on some sequences of the fitness text, or why it could not be scored."""

    profile: Profile
    sequences: range
    kl: tuple[float, ...]  # KL(dense || candidate), nats a token, one a sequence; empty if it failed
    nll: tuple[float, ...]  # negative log-likelihood of the text, nats a token, one a sequence; empty if it failed
    tokens: int  # tokens the candidate was measured on, 0 if it failed
    seconds: float  # its equal share of the walk's time
    error: str | None = None

    @property
    def fitness(self) -> float:
        """Mean KL over the sequences in nats a token, lower is better; infinite for a failed candidate."""
        return mean(self.kl) if self.error is None else math.inf

    @property
    def perplexity(self) -> float:
        """Perplexity over the sequences; infinite for a failed candidate."""
        return perplexity(self.nll) if self.error is None else math.inf


class PopulationWalk:
    """Evaluates populations of one elastic model on one fitness text."""

    def __init__(
        self,
        elastic: ElasticModel,
        store: LayerStore,
        targets: DenseTargets,
        input_ids: Tensor,
        *,
        state_memory: int = 1 << 30,
        prefix_memory: int = 1 << 30,
        walked: int | None = None,
    ) -> None:
        """Bind the model to a fitness text.

        Args:
            elastic: the elastic model.
            store: its layers.
            targets: the dense model's distributions over that text.
            input_ids: the text, [n, length].
            state_memory: bytes that the hidden states of a population may take. Sequences are walked in as many turns
                as that needs, at least one sequence a turn.
            prefix_memory: bytes of states to keep for later walks at most, on top of `state_memory`, and half of what
                is free before a walk; 0 keeps none. They are given up for good where memory does not suffice.
            walked: sequences of the text that later walks are over, of which states are kept; all of them by default.

        Raises:
            MeasurementError: the targets are those of another text.
        """
        if not torch.equal(targets.input_ids, input_ids.cpu()):
            raise MeasurementError("the dense targets are those of another text than the one to be measured on.")
        self.elastic = elastic
        self.store = store
        self.targets = targets
        self.input_ids = input_ids
        self.state_memory = state_memory
        self.counters = WalkCounters()
        self.prefix_memory = prefix_memory
        self.walked = walked or targets.n_sequences
        self.prefixes = PrefixStates(prefix_memory)

    @torch.no_grad()
    def measure(
        self, profiles: Sequence[Profile], sequences: range, progress: Progress | None = None
    ) -> list[Measurement]:
        """Score `profiles` on `sequences` of the fitness text.

        A candidate whose logits are not finite, whose compensation cannot be computed, or which does not fit in memory
        even alone on one sequence gets a Measurement with `error`; the others are not affected.

        Args:
            profiles: the population; equal profiles are computed once.
            sequences: consecutive sequences of the text.
            progress: called with (block and head evaluations done, those in all), a head counted as a layer.

        Returns:
            One measurement a profile, in their order.

        Raises:
            MeasurementError: sequences that the text does not have, or a profile of another model.
        """
        self.check(profiles, sequences)
        start = time.perf_counter()
        distinct = list(dict.fromkeys(profiles))
        self.prefixes.come_from(self._origin())
        free = free_memory(self.elastic.device) + self.prefixes.held_bytes
        self.prefixes.keep_within(min(self.prefix_memory, free // 2))
        run = _Run(self, distinct, progress)
        # Last turn first: halves of a turn that ran out of memory go on top of the stack, so text stays in order.
        pending = [(distinct, rows) for rows in reversed(self._turns(distinct, sequences))] if distinct else []
        run.expect(pending)
        try:
            while pending:
                some, rows = pending.pop()
                some = [profile for profile in some if profile not in run.failed]
                if some:
                    pending += run.turn(some, rows)
        finally:
            run.descent.forget_all_but({profile for profile in distinct if len(run.kl[profile]) == len(sequences)})
        run.finish()
        seconds = (time.perf_counter() - start) / max(1, len(profiles))
        tokens = len(sequences) * self.targets.length
        return [
            Measurement(profile, sequences, (), (), 0, seconds, run.failed[profile])
            if profile in run.failed
            else Measurement(profile, sequences, tuple(run.kl[profile]), tuple(run.nll[profile]), tokens, seconds)
            for profile in profiles
        ]

    @property
    def parallelism(self) -> dict[str, float]:
        """What a trace says of the processes that walk; {} of this one alone."""
        return {}

    def in_steps(self, profiles: Sequence[Profile], sequences: range, together: int) -> Iterator[list[Measurement]]:
        """`measure` of every `together` sequences of `sequences`, one after the other."""
        for at in range(0, len(sequences), together):
            yield self.measure(profiles, sequences[at : at + together])

    def check(self, profiles: Sequence[Profile], sequences: range) -> None:
        """Refuse sequences that the text does not have, and profiles of another model, with a MeasurementError."""
        if not sequences or sequences.step != 1 or sequences.start < 0 or sequences.stop > self.targets.n_sequences:
            raise MeasurementError(
                f"the fitness text has sequences 0 to {self.targets.n_sequences - 1}, not {sequences}."
            )
        for profile in profiles:
            if not self.elastic.space.contains(profile):
                raise MeasurementError(f"not a profile of this model: {profile.key()}.")

    def first_order(self, profile: Profile, sequences: Sequence[int]) -> Iterator[tuple[int, Costs]]:
        """First-order sensitivities at `profile`: index and table of every one of `sequences`, in their order.

        They pass the layers together, as many as `state_memory` has room for; where an allocation fails, fewer.

        Raises:
            FirstOrderError: they are not finite, or do not fit in memory even on one sequence.
        """
        states = 2 * len(self.store) * state_bytes(self.elastic, self.targets)
        waiting, short = list(sequences), False
        together = max(1, self.state_memory // states)
        while waiting:
            some = waiting[:together]
            try:
                found = first_order_sensitivities(self.elastic, self.store, self.targets, profile, some)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                shortage = str(error).partition("\n")[0]
            else:
                yield from zip(some, found, strict=True)
                del waiting[: len(some)]
                continue
            freed, again, short = self.give_up_memory(), not short, True
            if not (freed and again):
                if len(some) == 1:
                    raise FirstOrderError(f"out of memory even on one sequence: {shortage}")
                together = len(some) // 2

    def give_up_memory(self) -> bool:
        """Drop kept states for good and remembered refits, of which fewer are kept; whether that freed anything."""
        kept, remembered = self.prefixes.switch_off(), self.elastic.compensator.give_up()
        self.prefix_memory = 0
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return kept or remembered

    def _origin(self) -> tuple[object, ...]:
        """What a state depends on besides its path: which model and text, and whether either was written to since."""
        tensors = (*self.elastic.model.parameters(), self.input_ids)
        return (id(self.elastic), self.elastic.compensation, *((each.data_ptr(), each._version) for each in tensors))

    def _turns(self, profiles: Sequence[Profile], sequences: range) -> list[range]:
        """Runs of sequences for which the states of all `profiles` stay within the memory bound."""
        states = 1 + max(len(nodes) for nodes in trie(profiles))
        return turns(sequences, states * state_bytes(self.elastic, self.targets), self.state_memory)


class _Run:
    """The scores of one `measure` while they come in."""

    def __init__(self, walk: PopulationWalk, profiles: Sequence[Profile], progress: Progress | None) -> None:
        self.walk = walk
        self.descent = Descent(
            walk.elastic,
            walk.store,
            walk.targets,
            walk.input_ids,
            walk.prefixes,
            walk.counters,
            self._step,
            walk.walked,
        )
        self.short = False  # whether an allocation failed already
        self.failed = self.descent.failed
        self.kl: dict[Profile, list[float]] = {profile: [] for profile in profiles}
        self.nll: dict[Profile, list[float]] = {profile: [] for profile in profiles}
        self.progress = progress
        self.done = self.total = 0

    def expect(self, pending: Sequence[tuple[Sequence[Profile], range]]) -> None:
        """Set what the progress will add up to if nothing fails."""
        self.total = sum(sum(map(len, trie(some))) + 2 * len(some) for some, _ in pending)

    def _step(self, count: int) -> None:
        self.done = min(self.done + count, self.total)  # turns repeated for lack of memory are not counted twice
        if self.progress:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        """Count what failed candidates did not need as done."""
        if self.done < self.total:
            self._step(self.total - self.done)

    def turn(self, profiles: list[Profile], rows: range) -> list[tuple[list[Profile], range]]:
        """Walk `profiles` over `rows`; where memory does not suffice, return the halves to walk instead, last first."""
        try:
            scores = self.descent.scores(profiles, rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            shortage = str(error).partition("\n")[0]
        else:
            for profile, (kl, nll) in scores.items():
                self.kl[profile] += kl
                self.nll[profile] += nll
            return []
        # Outside the except block, because the traceback of the error keeps the tensors of the failed turn alive.
        freed, again = self.walk.give_up_memory(), not self.short
        self.short = True
        if freed and again:
            return [(profiles, rows)]
        if len(rows) > 1:
            half = len(rows) // 2
            return [(profiles, rows[half:]), (profiles, rows[:half])]
        if len(profiles) > 1:
            half = len(profiles) // 2
            return [(profiles[half:], rows), (profiles[:half], rows)]
        self.failed[profiles[0]] = f"out of memory even alone on one sequence: {shortage}"
        return []
