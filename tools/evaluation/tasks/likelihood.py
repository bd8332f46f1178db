"""How likely the elastic model at a profile holds every choice of many questions.

It goes through the layers once for as many questions as fit in memory, batch by batch inside a layer, with the very
blocks that evaluate candidates: no smaller model is built, a compensated projection is computed once a layer, and a
layer is asked from the store once a turn, whether it is resident or streamed. The head, a fifth of a small model's
work, runs only where a choice's own tokens are predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.targets import head_chunks
from self_pruner.tools.evaluation.tasks.packing import Pack, batch_of, batches
from self_pruner.tools.pruning.elastic import ElasticModel

CPU_TOKENS, GPU_TOKENS = 1024, 16384  # positions that pass a block together
STATE_MEMORY = 1 << 30  # bytes of hidden states and masks held at a time

Progress = Callable[[int, int], None]


class LikelihoodError(SelfPrunerError):
    """The model has no likelihood for a choice."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What the model makes of one choice."""

    nats: float  # natural logarithm of the probability of its tokens, at most 0
    greedy: bool  # whether each of its tokens is the most probable one


@torch.no_grad()
def likelihoods(
    elastic: ElasticModel,
    profile: Profile,
    packs: Sequence[Pack],
    progress: Progress | None = None,
    *,
    state_memory: int = STATE_MEMORY,
) -> list[list[Likelihood]]:
    """The likelihood of every choice of every pack, in their order.

    Args:
        elastic: the elastic model.
        profile: the candidate.
        packs: the questions; none longer than the model's context.
        progress: called with (tokens times layers done, those in all), the head counted as a layer.
        state_memory: bytes that the states and masks held at a time may take.

    Raises:
        LikelihoodError: the logits are not finite.
    """
    found: list[list[Likelihood]] = [[] for _ in packs]
    total = sum(len(one.tokens) for one in packs) * (len(elastic.store) + 1)
    done = 0

    def step(tokens: int) -> None:
        nonlocal done
        done += tokens
        if progress is not None:
            progress(done, total)

    for turn in _turns(elastic, packs, state_memory):
        groups = [[packs[index] for index in group] for group in turn]
        states, asked = _predicting(elastic, groups, _walk(elastic, profile, groups, step))
        nats, hits = _head(elastic, states, asked, [token for group in groups for token in _answers(group)])
        start = 0
        for group in turn:
            for index in group:
                for answer in packs[index].answers:
                    own = slice(start, start + len(answer))
                    found[index].append(Likelihood(float(nats[own].sum()), bool(hits[own].all())))
                    start = own.stop
        step(sum(len(one.tokens) for group in groups for one in group))
    return found


def _turns(elastic: ElasticModel, packs: Sequence[Pack], state_memory: int) -> Iterator[list[list[int]]]:
    """Batches of indices whose states and masks fit in `state_memory` together; at least one batch a turn."""
    width = elastic.model.config.hidden_size * elastic.dtype.itemsize
    turn: list[list[int]] = []
    held = 0
    for group in batches(packs, GPU_TOKENS if elastic.device.type == "cuda" else CPU_TOKENS):
        length = len(packs[group[0]].tokens)
        needed = len(group) * length * (2 * width + length)  # states, cosines and sines, mask
        if turn and held + needed > state_memory:
            yield turn
            turn, held = [], 0
        turn.append(group)
        held += needed
    if turn:
        yield turn


def _walk(
    elastic: ElasticModel, profile: Profile, groups: Sequence[Sequence[Pack]], step: Callable[[int], None]
) -> list[Tensor]:
    """The last hidden states [batch, length, hidden] of every group, every layer visited once."""
    decoder = elastic.model.get_decoder()
    windows = _windows(elastic)
    states, rotary = [], []
    masks: dict[int | None, list[Tensor]] = {window: [] for window in windows}
    for group in groups:
        for window, some in masks.items():
            batch = batch_of(group, window, elastic.device)
            some.append(batch.mask)
        states.append(decoder.embed_tokens(batch.input_ids))
        rotary.append(decoder.rotary_emb(states[-1], batch.positions))
    for index in range(len(elastic.store)):
        with elastic.store.layer(index) as layer:
            for number, group in enumerate(groups):
                attention, mlp = profile.attention[index], profile.mlp[index]
                mask = masks[windows[index]][number]
                hidden = elastic.attention_block(layer, index, attention, states[number], rotary[number], mask)
                states[number] = elastic.mlp_block(layer, index, mlp, hidden)
                step(sum(len(one.tokens) for one in group))
    return states


def _windows(elastic: ElasticModel) -> list[int | None]:
    """How far back each layer sees; None: all the way."""
    config, n_layers = elastic.model.config, len(elastic.store)
    window: int | None = getattr(config, "sliding_window", None)
    # Qwen names the kind of every layer; Mistral has one window for all.
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * n_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _predicting(
    elastic: ElasticModel, groups: Sequence[Sequence[Pack]], states: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The states [n, hidden] that predict a token that is asked about, each once, and which one each such token reads.

    The tokens come group by group, pack by pack, choice by choice.
    """
    picked, asked = [], []
    count = 0
    for group, hidden in zip(groups, states, strict=True):
        length = hidden.shape[1]
        places = [row * length + place for row, one in enumerate(group) for reads in one.reads for place in reads]
        unique, inverse = torch.tensor(places).unique(return_inverse=True)
        picked.append(hidden.flatten(0, 1)[unique.to(hidden.device)])
        asked.append(count + inverse)
        count += len(unique)
    return elastic.head_input(torch.cat(picked)), torch.cat(asked)


def _answers(group: Sequence[Pack]) -> Iterator[int]:
    """The tokens that are asked about."""
    return (token for one in group for answer in one.answers for token in answer)


def _head(elastic: ElasticModel, states: Tensor, asked: Tensor, answers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probability [m] of every answer, and whether it is the most probable token [m].

    `asked` [m] says which of the normed `states` [n, hidden] predicts each of the `answers`.
    """
    tokens = torch.tensor(answers)
    nats, hits = torch.empty(len(tokens)), torch.empty(len(tokens), dtype=torch.bool)
    for chunk in head_chunks(len(states)):
        logits = elastic.lm_head(states[chunk]).float()
        here = (asked >= chunk.start) & (asked < chunk.stop)
        rows, own = (asked[here] - chunk.start).to(logits.device), tokens[here].to(logits.device)
        logs = logits.log_softmax(-1)
        nats[here] = logs[rows, own].cpu()
        hits[here] = (logs[rows, own] == logs.amax(-1)[rows]).cpu()
    if not nats.isfinite().all():
        raise LikelihoodError("the logits of the pruned model are not finite")
    return nats, hits
