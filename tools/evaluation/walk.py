"""The population walk: a whole population is evaluated in one pass over the layers.

The walk goes through the trie of the population's profiles (sharing.py) breadth first, one sublayer at a time. It holds
one hidden state a node of the current depth, computes every child once and lets the last child take over its parent's
memory. So offspring pay only from where they leave their siblings, and a layer is asked from the store once for
all candidates, whether it is resident or streamed.

A candidate's numbers are those it would get alone: it passes the same operations.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memory.errors import SelfPrunerError
from memory.profile import PARTS, Part, Profile
from tools.evaluation.fitness import bucketed_kl, mean, next_tokens, perplexity, sequence_means, split
from tools.evaluation.sharing import by_width, trie
from tools.evaluation.targets import DenseTargets, Progress, batches_of, head_chunks
from tools.pruning.elastic import ElasticModel
from tools.pruning.store import Embedded, LayerStore


class WalkError(SelfPrunerError):
    """A population walk that was asked for something it has no data for."""


class NotFiniteError(SelfPrunerError):
    """A candidate whose logits are NaN or infinite."""


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


@dataclass(slots=True)
class WalkCounters:
    """How much work sharing saved, in block-tokens: one token through one attention or one MLP block."""

    computed: int = 0
    alone: int = 0  # what evaluating each candidate by itself would have computed

    @property
    def sharing(self) -> float:
        """Block-tokens alone over block-tokens computed."""
        return self.alone / self.computed if self.computed else 1.0


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
    ) -> None:
        """Bind the model to a fitness text.

        Args:
            elastic: the elastic model.
            store: its layers.
            targets: the dense model's distributions over that text.
            input_ids: the text, [n, length].
            state_memory: bytes that the hidden states of a population may take. Sequences are walked in as many turns
                as that needs, at least one sequence a turn.

        Raises:
            WalkError: the targets are those of another text.
        """
        if not torch.equal(targets.input_ids, input_ids.cpu()):
            raise WalkError("the dense targets are those of another text than the one to be measured on.")
        self.elastic = elastic
        self.store = store
        self.targets = targets
        self.input_ids = input_ids
        self.state_memory = state_memory
        self.counters = WalkCounters()

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
            WalkError: sequences that the text does not have, or a profile of another model.
        """
        if not sequences or sequences.step != 1 or sequences.start < 0 or sequences.stop > self.targets.n_sequences:
            raise WalkError(f"the fitness text has sequences 0 to {self.targets.n_sequences - 1}, not {sequences}.")
        for profile in profiles:
            if not self.elastic.space.contains(profile):
                raise WalkError(f"not a profile of this model: {profile.key()}.")
        start = time.perf_counter()
        distinct = list(dict.fromkeys(profiles))
        run = _Run(self, distinct, progress)
        # Last turn first: halves of a turn that ran out of memory go on top of the stack, so text stays in order.
        pending = [(distinct, rows) for rows in reversed(self._turns(distinct, sequences))] if distinct else []
        run.expect(pending)
        while pending:
            some, rows = pending.pop()
            some = [profile for profile in some if profile not in run.failed]
            if some:
                pending += run.turn(some, rows)
        run.finish()
        seconds = (time.perf_counter() - start) / max(1, len(profiles))
        tokens = len(sequences) * self.targets.length
        return [
            Measurement(profile, sequences, (), (), 0, seconds, run.failed[profile])
            if profile in run.failed
            else Measurement(profile, sequences, tuple(run.kl[profile]), tuple(run.nll[profile]), tokens, seconds)
            for profile in profiles
        ]

    def _turns(self, profiles: Sequence[Profile], sequences: range) -> list[range]:
        """Equal runs of sequences, short enough for the states of all `profiles` to stay within the memory bound."""
        states = 1 + max(len(nodes) for nodes in trie(profiles))
        a_sequence = states * self.targets.length * self.elastic.model.config.hidden_size * self.elastic.dtype.itemsize
        turns = math.ceil(len(sequences) / max(1, self.state_memory // a_sequence))
        step = math.ceil(len(sequences) / turns)
        return [sequences[at : at + step] for at in range(0, len(sequences), step)]


class _Run:
    """The scores of one `measure` while they come in."""

    def __init__(self, walk: PopulationWalk, profiles: Sequence[Profile], progress: Progress | None) -> None:
        self.walk = walk
        self.elastic = walk.elastic
        self.kl: dict[Profile, list[float]] = {profile: [] for profile in profiles}
        self.nll: dict[Profile, list[float]] = {profile: [] for profile in profiles}
        self.failed: dict[Profile, str] = {}
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
            scores = self._walk(profiles, rows)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            shortage = str(error).partition("\n")[0]
        else:
            for profile, (kl, nll) in scores.items():
                self.kl[profile] += kl
                self.nll[profile] += nll
            return []
        # Outside the except block, because the traceback of the error keeps the tensors of the failed turn alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) > 1:
            half = len(rows) // 2
            return [(profiles, rows[half:]), (profiles, rows[:half])]
        if len(profiles) > 1:
            half = len(profiles) // 2
            return [(profiles[half:], rows), (profiles[:half], rows)]
        self.failed[profiles[0]] = f"out of memory even alone on one sequence: {shortage}"
        return []

    def _walk(self, profiles: list[Profile], rows: range) -> dict[Profile, tuple[list[float], list[float]]]:
        """Scores of all profiles that do not fail, on all `rows`, in one pass over the layers."""
        embedded = self.elastic.embed(self.walk.input_ids[rows.start : rows.stop])
        groups = deque([_Group(profiles, embedded.hidden)])
        embedded = embedded._replace(hidden=embedded.hidden[:0])  # the state belongs to the groups from here on
        for index in range(len(self.walk.store)):
            with self.walk.store.layer(index) as layer:
                for part in PARTS:
                    groups = self._sublayer(layer, index, part, groups, embedded)
        scores = {}
        while groups:
            (profile,), hidden = groups.popleft()  # one profile each: they are distinct, so the paths have parted
            try:
                scores[profile] = self._score(hidden, rows)
            except NotFiniteError as error:
                self.failed[profile] = str(error)
            self._step(2)
        return scores

    def _sublayer(
        self, layer: nn.Module, index: int, part: Part, groups: deque[_Group], embedded: Embedded
    ) -> deque[_Group]:
        """The next generation of states; empties `groups`, so that no state outlives its last user."""
        counters, children = self.walk.counters, deque[_Group]()
        while groups:
            profiles, parent = groups.popleft()
            counters.alone += len(profiles) * parent.shape[0] * parent.shape[1]
            splits = by_width(profiles, index, part)
            for number, (width, users) in enumerate(splits, start=1):
                child = parent if number == len(splits) else torch.empty_like(parent)
                try:
                    self._block(layer, index, part, width, parent, child, embedded)
                except (SelfPrunerError, torch.linalg.LinAlgError) as error:
                    self.failed.update(dict.fromkeys(users, str(error)))
                else:
                    counters.computed += parent.shape[0] * parent.shape[1]
                    children.append(_Group(users, child))
                self._step(1)
        return children

    def _block(
        self, layer: nn.Module, index: int, part: Part, width: int, parent: Tensor, child: Tensor, embedded: Embedded
    ) -> None:
        """Pass `parent` [n, length, hidden] through one block into `child`, which may be the same tensor."""
        for some in batches_of(*parent.shape[:2]):
            if part == "attention":
                child[some] = self.elastic.attention_block(
                    layer, index, width, parent[some], embedded.position_embeddings, embedded.masks[index]
                )
            else:
                child[some] = self.elastic.mlp_block(layer, index, width, parent[some])

    def _score(self, hidden: Tensor, rows: range) -> tuple[list[float], list[float]]:
        """KL and negative log-likelihood of every sequence, from last states [n, length, hidden].

        Raises:
            NotFiniteError: one of them is not finite.
        """
        following = next_tokens(self.walk.input_ids[rows.start : rows.stop]).to(hidden.device)
        kl: list[float] = []
        nll: list[float] = []
        for row, sequence in enumerate(rows):
            divergence, chosen = [], []
            for positions in head_chunks(hidden.shape[1]):
                indices, dense = self.walk.targets.buckets(sequence, positions, hidden.device)
                logits = self.elastic.lm_head(self.elastic.head_input(hidden[row, positions]))
                reduced = split(logits, indices, following[row, positions])
                del logits
                divergence.append(bucketed_kl(dense, reduced.buckets))
                chosen.append(-reduced.chosen)
            kl += sequence_means(torch.cat(divergence)[None], last=True)
            nll += sequence_means(torch.cat(chosen)[None], last=False)
            if not (math.isfinite(kl[-1]) and math.isfinite(nll[-1])):
                raise NotFiniteError(f"the logits are not finite (NaN or infinite) on sequence {sequence}.")
        return kl, nll


class _Group(NamedTuple):
    """Candidates that agree so far, and the hidden state they share."""

    profiles: list[Profile]
    hidden: Tensor  # [n, length, hidden]


def _out_of_memory(error: BaseException) -> bool:
    """Whether this is a failed allocation; torch has a class for it on accelerators only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
