"""Constrained decoding of n samples of one prompt, paying for decisions only.

Every step asks each live sample's constraint which tokens are legal, draws one from the model's distribution over
them, and appends at once all tokens that the constraint then forces: one forward pass a decision, however many braces
and field names lie between two decisions.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.endings import WATCH, ending
from self_pruner.agent.brain.grammar import GrammarConstraint
from self_pruner.memory.errors import BrainError

NUCLEUS = 1024  # tokens looked at first for top-p; the full vocabulary is sorted only where these fall short


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn among the legal ones."""

    temperature: float = 0.8  # 0 takes the likeliest
    top_p: float = 0.95  # of the probability that the legal tokens have among themselves
    max_tokens: int = 1024  # tokens of one reply, forced ones included
    forced: bool = True  # append forced tokens in one pass; False feeds each alone: the same decisions, more steps
    time_limit: float | None = None  # seconds for all samples together
    ends_in_time: bool = True  # end a reply that would be cut; a text without a form can be cut anywhere
    over: Callable[[list[int]], bool] | None = None  # whether what was said so far ends the reply


@dataclass(slots=True)
class Sample:
    """One reply in the making."""

    constraint: GrammarConstraint
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)  # without the end-of-text token
    pending: list[int] = field(default_factory=list)  # said, but not yet fed to the model
    sampled: int = 0
    forced: int = 0
    complete: bool = False  # a whole reply, not one cut at max_tokens


@dataclass(frozen=True, slots=True)
class Decoded:
    """Samples of one prompt and what they cost."""

    samples: list[Sample]
    steps: int  # forward passes after the prompt
    prompt_tokens: int
    cached_tokens: int  # prompt tokens that were in the cache
    seconds: float


def decode(
    branches: Branches,
    prompt: Sequence[int],
    constraint: Callable[[int], GrammarConstraint],
    *,
    n: int,
    seed: int,
    sampling: Sampling,
    end: Sequence[int],
) -> Iterator[Decoded]:
    """Draws `n` samples of what follows `prompt`, sample i under `constraint(i)`, fresh and perhaps its own.

    Deterministic: sample i depends on (seed, i) and the prompt alone. Token ids in `end` end a sample and are no part
    of it.

    Returns:
        The samples as far as they are, after every decision of theirs, and at the end the whole ones. The time in which
        nobody asks for the next step is not counted.

    Raises:
        BrainError: the constraint fails.
        BrainError: `sampling.time_limit` is over.
    """

    def so_far() -> Decoded:
        return Decoded(samples, steps, len(prompt), min(cached, len(prompt)), time.monotonic() - started)

    started = time.monotonic()
    samples = [Sample(constraint(index), generator(seed, index)) for index in range(n)]
    openings = [force(sample) if sampling.forced else [] for sample in samples]
    live = {index: sample for index, sample in enumerate(samples) if not finished(sample, sampling)}
    steps = cached = 0
    if live:
        # What every reply begins with is as good as part of the prompt.
        shared = os.path.commonprefix([openings[index] for index in live])
        first, cached = branches.read([*prompt, *shared])
        logits = dict.fromkeys(live, first)
        own = {index: rest for index in live if (rest := openings[index][len(shared) :])}
        if own:
            logits |= branches.extend(own)
            steps += 1
    while live:
        if sampling.time_limit is not None and time.monotonic() - started > sampling.time_limit:
            raise BrainError(f"the brain took longer than the {sampling.time_limit:g} s it was given")
        for index, sample in live.items():
            sample.pending = say(sample, logits[index], sampling, end)
        live = {index: sample for index, sample in live.items() if not finished(sample, sampling)}
        if live:
            paused = time.monotonic()
            yield so_far()
            started += time.monotonic() - paused
            logits = branches.extend({index: sample.pending for index, sample in live.items()})
            steps += 1
    branches.rewind()
    yield so_far()


def force(sample: Sample) -> list[int]:
    """Says all that the constraint forces, and returns it."""
    said = sample.constraint.accept_forced()
    sample.tokens += said
    sample.forced += len(said)
    return said


def say(sample: Sample, logits: Tensor, sampling: Sampling, end: Sequence[int]) -> list[int]:
    """Decides one token, says it with all that it forces, and returns what was said.

    Where the reply could not be ended within its limit after that token, it is ended instead.
    """
    legal = sample.constraint.legal()
    token = draw(logits, legal, sampling, sample.generator)
    left = sampling.max_tokens - len(sample.tokens)
    if sampling.ends_in_time and left <= WATCH and len(legal) > 1 and not ends_after(sample.constraint, token, left):
        last = ending(sample.constraint, left)
        if last is not None:
            sample.constraint.accept(last)
            sample.tokens += (said := [one for one in last if one not in end])
            sample.forced += len(said)
            return said
    sample.constraint.accept([token])
    if token in end:
        return []
    sample.tokens.append(token)
    sample.sampled += 1
    return [token, *force(sample)] if sampling.forced else [token]


def ends_after(constraint: GrammarConstraint, token: int, left: int) -> bool:
    """Whether a reply that says `token` next can still be ended within `left` tokens, that one included."""
    after = constraint.copy()
    after.accept([token])
    return ending(after, left - 1) is not None


def finished(sample: Sample, sampling: Sampling) -> bool:
    """Whether a sample has come to its end, or to the end of what it may use."""
    sample.complete = sample.constraint.done or (sampling.over is not None and sampling.over(sample.tokens))
    return sample.complete or len(sample.tokens) >= sampling.max_tokens


def generator(seed: int, index: int) -> torch.Generator:
    """The random numbers of sample `index`: on the CPU, so that they are the same on every device."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(logits: Tensor, legal: NDArray[np.int64], sampling: Sampling, rng: torch.Generator) -> int:
    """One of the `legal` ids, from logits [vocab] on the CPU: temperature, then the smallest set that holds top_p."""
    ids = torch.from_numpy(legal)
    if len(ids) == 1:
        return int(ids[0])
    scores = logits[ids]
    finite = torch.isfinite(scores)
    if not finite.any():
        raise BrainError("the model gives no legal token a finite score")
    scores = scores.masked_fill(~finite, -torch.inf)
    if sampling.temperature == 0:
        return int(ids[scores.argmax()])
    chances = (scores / sampling.temperature).softmax(0)
    if not torch.isfinite(chances).all():  # so low a temperature takes scores beyond what a number holds
        chances = ((scores - scores.max()) / sampling.temperature).softmax(0)
    top, places = chances.topk(min(NUCLEUS, len(ids)))
    if len(top) < len(ids) and top.sum() < sampling.top_p:
        top, places = chances.sort(descending=True)
    before = top.cumsum(0) - top  # a token belongs to the nucleus while those before it fall short of top_p
    top = top.masked_fill(before >= sampling.top_p, 0.0)
    return int(ids[places[torch.multinomial(top, 1, generator=rng)]])
