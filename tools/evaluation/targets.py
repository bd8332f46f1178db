"""What the dense model says about the fitness text: computed once, compared with by every candidate.

A position keeps its `TOP_K` most probable next tokens, their log-probabilities and that of the rest bucket: 4 KiB a
token (int32 indices, float32 log-probabilities, so that the dense model's KL from itself is zero to rounding), whatever
the vocabulary. Built layer by layer through the same layer store as candidates, so a streamed model needs no more
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.fitness import TOP_K, Buckets, next_tokens, sequence_means, split
from self_pruner.tools.models.tensor_files import save_whole
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import LayerStore

HEAD_TOKENS = 256  # positions whose logits exist at a time: 50 MB for a vocabulary of 49,152
BATCH_TOKENS = 1024  # positions that pass a block together: what they become inside should stay in the cache

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DenseTargets:
    """The dense model's bucketed distribution at every position of `input_ids`."""

    input_ids: Tensor  # [n, length] int64
    indices: Tensor  # [n, length, k] int32, most probable first
    top: Tensor  # [n, length, k] float32 log-probabilities, nats
    rest: Tensor  # [n, length] float32 log-probability of all other tokens together
    nll: tuple[float, ...]  # the dense model's own negative log-likelihood, nats a token, one a sequence

    @property
    def n_sequences(self) -> int:
        """Sequences of the text."""
        return self.input_ids.shape[0]

    @property
    def length(self) -> int:
        return self.input_ids.shape[1]

    def buckets(self, sequence: int, positions: slice, device: torch.device) -> tuple[Tensor, Buckets]:
        """Indices [t, k] int64 and log-probabilities of some positions of one sequence, on `device`."""
        return (
            self.indices[sequence, positions].to(device, torch.int64),
            Buckets(
                top=self.top[sequence, positions].to(device, torch.float32),
                rest=self.rest[sequence, positions].to(device, torch.float32),
            ),
        )

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        elastic: ElasticModel,
        store: LayerStore,
        input_ids: Tensor,
        *,
        k: int = TOP_K,
        progress: Progress | None = None,
    ) -> DenseTargets:
        """Run the dense model once over `input_ids` [n, length] and keep what a fitness needs of it.

        Args:
            elastic: the elastic model, whose dense profile is the dense model.
            store: its layers.
            input_ids: the text, at least two tokens a sequence.
            k: buckets besides the rest; at most the vocabulary.
            progress: called with (steps done, steps in all); a step is a layer or the head on one sequence.

        Raises:
            MeasurementError: too short a sequence, or the dense model's own logits are not finite.
        """
        n, length = input_ids.shape
        if n < 1 or length < 2:
            raise MeasurementError(
                f"dense targets need at least one sequence of two tokens, got a text of {n} x {length}."
            )
        total = len(store) + n
        hidden = _dense_states(elastic, store, input_ids, lambda done: progress(done, total) if progress else None)
        indices, tops, rests = [], [], []
        nll: list[float] = []
        for sequence in range(n):
            row = _dense_row(elastic, hidden[sequence], next_tokens(input_ids)[sequence].to(hidden.device), k)
            if not all(torch.isfinite(part).all() for part in row[1:]):
                raise MeasurementError(
                    f"the dense model's own logits are not finite on sequence {sequence}: no fitness."
                )
            indices.append(row[0].to("cpu", torch.int32))
            tops.append(row[1].cpu())
            rests.append(row[2].cpu())
            nll += sequence_means(-row[3][None], last=False)
            if progress:
                progress(len(store) + sequence + 1, total)
        return cls(
            input_ids=input_ids.cpu().clone(),
            indices=torch.stack(indices),
            top=torch.stack(tops),
            rest=torch.stack(rests),
            nll=tuple(nll),
        )

    def save(self, path: Path) -> None:
        """Write as one safetensors file, whole or not at all."""
        tensors = {"input_ids": self.input_ids, "indices": self.indices, "top": self.top, "rest": self.rest}
        save_whole(path, {**tensors, "nll": torch.tensor(self.nll, dtype=torch.float64)})

    @classmethod
    def load(cls, path: Path) -> DenseTargets:
        """Read what `save` wrote.

        Raises:
            MeasurementError: no safetensors file, or one of something else.
        """
        names = ("input_ids", "indices", "top", "rest", "nll")
        try:
            with safe_open(path, framework="pt") as file:
                held = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise MeasurementError(f"{path} does not hold dense targets: {error}.") from error
        shape = held["input_ids"].shape
        shapes_agree = held["indices"].shape == held["top"].shape and held["rest"].shape == shape
        if held["top"].shape[:2] != shape or not shapes_agree or held["nll"].shape != shape[:1]:
            raise MeasurementError(f"{path} does not hold dense targets: its tensors are of different texts.")
        return cls(**{name: held[name] for name in names[:-1]}, nll=tuple(held["nll"].tolist()))


def _dense_states(
    elastic: ElasticModel, store: LayerStore, input_ids: Tensor, layer_done: Callable[[int], None]
) -> Tensor:
    """The dense model's last hidden states, [n, length, hidden], every layer visited once."""
    dense = elastic.space.dense()
    hidden, positions, masks = elastic.embed(input_ids)
    for index in range(len(store)):
        with store.layer(index) as layer:
            for some in batches_of(*input_ids.shape):
                state = elastic.attention_block(
                    layer, index, dense.attention[index], hidden[some], positions, masks[index]
                )
                hidden[some] = elastic.mlp_block(layer, index, dense.mlp[index], state)
        layer_done(index + 1)
    return hidden


def _dense_row(elastic: ElasticModel, hidden: Tensor, following: Tensor, k: int) -> tuple[Tensor, ...]:
    """Indices, top, rest and the log-probability of the following token for one sequence [length, hidden]."""
    pieces = []
    for positions in head_chunks(hidden.shape[0]):
        logits = elastic.lm_head(elastic.head_input(hidden[positions])).float()
        indices = logits.topk(min(k, logits.shape[1]), dim=1).indices
        reduced = split(logits, indices, following[positions])
        pieces.append((indices, *reduced.buckets, reduced.chosen))
    return tuple(torch.cat(part) for part in zip(*pieces, strict=True))


def batches_of(n: int, length: int) -> Iterator[slice]:
    """Slices of `n` sequences of `length` tokens that pass a block together."""
    step = max(1, BATCH_TOKENS // length)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def head_chunks(length: int) -> Iterator[slice]:
    """Slices of the positions of one sequence whose logits are computed together."""
    return (slice(start, min(start + HEAD_TOKENS, length)) for start in range(0, length, HEAD_TOKENS))
