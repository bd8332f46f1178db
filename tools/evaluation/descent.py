"""One pass of a population down the layers of one elastic model: the arithmetic of a population walk.

Breadth first over the trie of profiles, one sublayer at a time. Candidates join at the deepest state that an earlier
pass kept of their path, and some states are left for later passes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.evaluation.fitness import bucketed_kl, next_tokens, sequence_means, split
from self_pruner.tools.evaluation.prefixes import Path, PrefixStates, depths_to_keep
from self_pruner.tools.evaluation.sharing import WalkCounters, by_width, path, trie
from self_pruner.tools.evaluation.shortage import is_out_of_memory
from self_pruner.tools.evaluation.targets import DenseTargets, batches_of, head_chunks
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import Embedded, LayerStore, device_of


class NotFiniteError(SelfPrunerError):
    """A candidate whose logits are NaN or infinite."""


class _Group(NamedTuple):
    """Candidates that agree so far, and the hidden state they share."""

    profiles: list[Profile]
    hidden: Tensor  # [n, length, hidden]
    kept: bool  # whether the state is left for later walks too, so must not be written to


@dataclass(slots=True)
class Descent:
    """Takes a population through all layers, again and again while one `measure` lasts."""

    elastic: ElasticModel
    store: LayerStore
    targets: DenseTargets
    input_ids: Tensor  # [n, length]
    prefixes: PrefixStates
    counters: WalkCounters
    step: Callable[[int], None]  # told how many block evaluations are done; a head counts as a layer
    walked: int  # sequences that later walks are over
    failed: dict[Profile, str] = field(default_factory=dict)  # why, by candidate
    left: list[tuple[range, Path, list[Profile]]] = field(default_factory=list)  # states kept, and who passed them

    def scores(self, profiles: list[Profile], rows: range) -> dict[Profile, tuple[list[float], list[float]]]:
        """KL and negative log-likelihood, one a sequence, of all profiles that do not fail on `rows`."""
        embedded = self.elastic.embed(self.input_ids[rows.start : rows.stop])
        waiting = self._begin(profiles, rows, embedded.hidden)
        embedded = embedded._replace(hidden=embedded.hidden[:0])  # the state belongs to the groups from here on
        to_keep = self._depths_to_keep(profiles)
        groups: deque[_Group] = deque()
        with self.elastic.compensator.one_pass():
            for index in range(len(self.store)):
                if not groups and not waiting.keys() & {2 * index, 2 * index + 1}:
                    continue  # an earlier walk took everybody through this layer
                with self.store.layer(index) as layer:
                    for depth, part in enumerate(PARTS, start=2 * index):
                        groups.extend(waiting.pop(depth, ()))
                        groups = self._sublayer(layer, index, part, groups, embedded)
                        if depth + 1 in to_keep:
                            groups = deque(self._keep(group, rows, depth + 1) for group in groups)
        scores = {}
        while groups:
            (profile,), hidden, _ = groups.popleft()  # one profile each: they are distinct, so the paths have parted
            try:
                scores[profile] = self._score(hidden, rows)
            except NotFiniteError as error:
                self.failed[profile] = str(error)
            self.step(2)
        return scores

    def forget_all_but(self, scored: set[Profile]) -> None:
        """Drop the states that were left by none of these candidates."""
        for rows, prefix, users in self.left:
            if scored.isdisjoint(users):
                self.prefixes.discard(rows, prefix)

    def _depths_to_keep(self, profiles: list[Profile]) -> frozenset[int]:
        """Where to keep states, if this population is to be measured on the whole text and its children after it."""
        room = self.prefixes.memory_bytes // (state_bytes(self.elastic, self.targets) * self.walked)
        return depths_to_keep([len(nodes) for nodes in trie(profiles)], room) if room else frozenset()

    def _begin(self, profiles: list[Profile], rows: range, embedded: Tensor) -> dict[int, list[_Group]]:
        """Candidates by the sublayers they need not pass, those that begin at the same state together."""
        counters, tokens = self.counters, embedded.shape[0] * embedded.shape[1]
        groups: dict[Path, _Group] = {}
        starts: dict[Profile, int] = {}
        for profile in profiles:
            prefix = path(profile)
            starts[profile], state = self.prefixes.deepest(rows, prefix)
            begun = _Group([], embedded if state is None else state, state is not None)
            groups.setdefault(prefix[: starts[profile]], begun).profiles.append(profile)
        saved = sum(map(len, trie(profiles))) - sum(map(len, trie(profiles, starts)))
        counters.kept += saved * tokens
        counters.alone += sum(starts.values()) * tokens
        if saved:
            self.step(saved)
        waiting: dict[int, list[_Group]] = {}
        for prefix, group in groups.items():
            waiting.setdefault(len(prefix), []).append(group)
        return waiting

    def _keep(self, group: _Group, rows: range, depth: int) -> _Group:
        """Leave the state of `group` for later walks."""
        prefix = path(group.profiles[0])[:depth]
        if group.kept or not self.prefixes.put(rows, prefix, group.hidden):
            return group
        self.left.append((rows, prefix, group.profiles))
        return group._replace(kept=True)

    def _sublayer(
        self, layer: nn.Module, index: int, part: Part, groups: deque[_Group], embedded: Embedded
    ) -> deque[_Group]:
        """The next generation of states; empties `groups`, so that no state outlives its last user."""
        counters, children, here = self.counters, deque[_Group](), device_of(layer)
        while groups:
            profiles, parent, kept = groups.popleft()
            if parent.device != here:
                parent, kept = parent.to(here), False
            counters.alone += len(profiles) * parent.shape[0] * parent.shape[1]
            splits = by_width(profiles, index, part)
            for number, (width, users) in enumerate(splits, start=1):
                child = parent if number == len(splits) and not kept else torch.empty_like(parent)
                try:
                    self._block(layer, index, part, width, parent, child, embedded)
                except (SelfPrunerError, torch.linalg.LinAlgError) as error:
                    if is_out_of_memory(error):
                        raise
                    self.failed.update(dict.fromkeys(users, str(error)))
                else:
                    counters.computed += parent.shape[0] * parent.shape[1]
                    children.append(_Group(users, child, False))
                self.step(1)
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
        hidden = hidden.to(self.elastic.device)
        following = next_tokens(self.input_ids[rows.start : rows.stop]).to(hidden.device)
        kl: list[float] = []
        nll: list[float] = []
        for row, sequence in enumerate(rows):
            divergence, chosen = [], []
            for positions in head_chunks(hidden.shape[1]):
                indices, dense = self.targets.buckets(sequence, positions, hidden.device)
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


def state_bytes(elastic: ElasticModel, targets: DenseTargets) -> int:
    """Bytes of one hidden state of one sequence."""
    return targets.length * elastic.model.config.hidden_size * elastic.dtype.itemsize
