"""The choices of one question packed into one sequence, so that what they have in common is computed once.

A multiple-choice task asks for the likelihood of every choice after the same context. Packed, the common prefix comes
first and the choices' own tokens follow as branches: a branch attends to the prefix and to itself, and its positions go
on from the prefix, so every token sees exactly what it would see alone. With four endings after a long context, as in
HellaSwag, that is less than half of the tokens, and single-token answers, as in BoolQ, cost nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PREFIX, PADDING = 0, -1  # branch numbers of what is common, and of nobody's tokens


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one choice: how likely `continuation` is after `context`, in token ids."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    def inputs(self, longest: int) -> tuple[int, ...]:
        """What the model reads, cut on the left to `longest` tokens: the last token is only predicted."""
        return (self.context + self.continuation)[-(longest + 1) :][:-1]


@dataclass(frozen=True, slots=True)
class Pack:
    """The choices of one row as one sequence of `len(tokens)` tokens."""

    tokens: tuple[int, ...]
    branches: tuple[int, ...]  # whose token it is: PREFIX for all choices, else 1, 2, ...
    positions: tuple[int, ...]  # of every token in its own choice's sequence
    reads: tuple[tuple[int, ...], ...]  # a choice: where the logits of each token of its continuation are
    answers: tuple[tuple[int, ...], ...]  # a choice: those tokens


def pack(questions: Sequence[Question], longest: int) -> Pack:
    """Packs the choices of one row; each is cut on the left to `longest` tokens, as lm-eval does.

    Every continuation must have at least one token and at most `longest`.
    """
    inputs = [question.inputs(longest) for question in questions]
    common = _common_prefix(inputs)
    tokens, branches, positions = list(inputs[0][:common]), [PREFIX] * common, list(range(common))
    reads = []
    for branch, (question, own) in enumerate(zip(questions, inputs, strict=True), start=1):
        start = len(tokens) - common  # packed place less own position, beyond the prefix
        tokens += own[common:]
        branches += [branch] * (len(own) - common)
        positions += range(common, len(own))
        asked = range(len(own) - len(question.continuation), len(own))
        reads.append(tuple(place if place < common else start + place for place in asked))
    answers = tuple(question.continuation for question in questions)
    return Pack(tuple(tokens), tuple(branches), tuple(positions), tuple(reads), answers)


def _common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest common prefix."""
    shortest, longest = min(sequences), max(sequences)  # in dictionary order nothing differs earlier than these two
    return next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), len(shortest))


def batches(packs: Sequence[Pack], tokens: int) -> Iterator[list[int]]:
    """Indices of packs that are computed together: of like length, longest first, at most `tokens` with padding."""
    order = sorted(range(len(packs)), key=lambda index: -len(packs[index].tokens))
    while order:
        size = max(1, tokens // max(1, len(packs[order[0]].tokens)))
        yield order[:size]
        order = order[size:]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some packs side by side, padded on the right."""

    input_ids: Tensor  # [batch, length] int64
    positions: Tensor  # [batch, length] int64
    mask: Tensor  # [batch, 1, length, length] bool, True where a token (row) sees another one (column)


def batch_of(packs: Sequence[Pack], window: int | None, device: torch.device) -> Batch:
    """The tensors of some packs on `device`; a token sees `window` positions, itself among them, or all if None."""
    length = max(len(one.tokens) for one in packs)
    input_ids = torch.zeros(len(packs), length, dtype=torch.int64)
    positions = torch.zeros(len(packs), length, dtype=torch.int64)
    branches = torch.full((len(packs), length), PADDING, dtype=torch.int64)
    for row, one in enumerate(packs):
        size = len(one.tokens)
        input_ids[row, :size] = torch.tensor(one.tokens)
        positions[row, :size] = torch.tensor(one.positions)
        branches[row, :size] = torch.tensor(one.branches)
    reader, read = branches[:, :, None], branches[:, None, :]
    mask = ((read == PREFIX) | (read == reader)) & torch.ones(length, length, dtype=torch.bool).tril()
    if window is not None:
        mask &= positions[:, :, None] - positions[:, None, :] < window
    return Batch(input_ids.to(device), positions.to(device), mask[:, None].to(device))
