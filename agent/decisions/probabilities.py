"""The exact probability of every option of a decision, without sampling: one pass over a prompt and its options.

A brain writes a reply token by token, each drawn among those that the grammar allows. So the probability of a text is a
product over its decisions: what the tokens that keep to the text have of the probability of all allowed ones. Most
texts can be spelled in several ways (`12` as one token or two); all of them are added up, state by state, where a state
is how much of the text is written. What follows a state is read behind its shortest spelling, the one with the longest
tokens. Tokens that the grammar forces are no decisions, as when the brain writes (see decode.py).

Which states there are follows from the grammar alone, so the model is asked once: the prompt is read, and the options
are branches of it in one pass.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from self_pruner.agent.brain.branches import Branches
from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.grammar import GrammarConstraint
from self_pruner.memory.errors import BrainError

TOGETHER = 256  # states whose logits exist at a time
GREEDY = 1e-6  # the temperature that stands for 0


@dataclass(slots=True)
class _State:
    """So much of some options is written: the tokens of its shortest spelling, and what may come next."""

    tokens: list[int]
    legal: NDArray[np.int64]
    steps: dict[bytes, list[int]] = field(default_factory=dict)  # places in `legal`, by the text written after them


@dataclass(frozen=True)
class Spellings:
    """All states of the options of one decision under one grammar; made once, for any prompt."""

    texts: list[bytes]  # of the options
    states: dict[bytes, _State]  # by what is written so far
    opening: list[int]  # the tokens that all of them begin with: as good as part of the prompt
    first: bytes  # what they write


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities of options behind one prompt, and what they cost."""

    log_probabilities: list[float]
    prompt_tokens: int
    read: int  # tokens that went through the model: what the cache lacked of the prompt, and the options
    seconds: float


def written(call: dict[str, Any]) -> bytes:
    """A call as the grammar has it: compact JSON."""
    return json.dumps(call, separators=(",", ":")).encode()


def spellings(grammar: str, alphabet: Any, vocab: int, texts: Sequence[bytes]) -> Spellings:
    """The states of `texts` under `grammar`, which admits no thought before a call.

    Args:
        grammar: of replies, see grammar.py.
        alphabet: the tokenizer as llguidance sees it.
        vocab: number of logits of the model.
        texts: replies, different ones.

    Raises:
        BrainError: the grammar does not admit one of them.
    """
    constraint = GrammarConstraint(grammar, alphabet, vocab)
    opening = constraint.accept_forced()
    first: bytes = alphabet.decode_bytes(opening)
    states: dict[bytes, _State] = {}
    constraints: dict[bytes, GrammarConstraint] = {}
    waiting: list[tuple[int, bytes]] = []
    ends = set(texts)

    def reach(text: bytes, tokens: list[int], constraint: GrammarConstraint) -> None:
        if not any(whole.startswith(text) for whole in texts):
            raise BrainError(f"the grammar forces {text!r}, which begins no option")
        if text in states or text in ends:
            return
        states[text] = _State(tokens, constraint.allowed())
        constraints[text] = constraint
        heapq.heappush(waiting, (len(text), text))

    reach(first, opening, constraint)
    while waiting:
        text = heapq.heappop(waiting)[1]
        state, constraint = states[text], constraints.pop(text)
        continuing = [whole[len(text) :] for whole in texts if whole.startswith(text)]
        fitting: list[tuple[int, int]] = []
        for place, token in enumerate(state.legal.tolist()):
            piece = alphabet.decode_bytes([token])
            if piece and any(rest.startswith(piece) for rest in continuing):
                fitting.append((-len(piece), place))
        for _, place in sorted(fitting):  # longest tokens first: a state keeps the first spelling that reaches it
            follower = constraint.copy()
            token = int(state.legal[place])
            follower.accept([token])
            said = [token, *follower.accept_forced()]
            after = text + alphabet.decode_bytes(said)
            reach(after, [*state.tokens, *said], follower)
            state.steps.setdefault(after, []).append(place)
    for text in texts:
        if not _admitted(states, first, text):
            raise BrainError(f"the grammar does not admit the option {text.decode()}")
    return Spellings(list(texts), states, opening, first)


def score(brain: TargetBrain, prompt: Sequence[int], spelled: Spellings) -> Scored:
    """The log-probability of every option behind `prompt` (token ids), at the brain's temperature and without top-p.

    It is relative to all that the grammar admits: of a grammar that admits nothing else, the probabilities add up to 1.

    Raises:
        BrainError: the prompt and the options are longer than the model's context.
    """
    started = time.monotonic()
    longest = max((len(state.tokens) for state in spelled.states.values()), default=0)
    if brain.context is not None and len(prompt) + longest > brain.context:
        raise BrainError(f"the prompt and its options have {len(prompt) + longest} tokens of {brain.context} at most")
    branches = brain.branches
    with branches.lock:
        steps, read = _read(branches, prompt, spelled, brain.temperature)
    found = [_log_probability(steps, spelled.first, text) for text in spelled.texts]
    return Scored(found, len(prompt), read, time.monotonic() - started)


def _read(
    branches: Branches, prompt: Sequence[int], spelled: Spellings, temperature: float
) -> tuple[dict[bytes, dict[bytes, float]], int]:
    """The log-probability of every step from every state behind `prompt`, and how many tokens were computed for it."""
    logits, cached = branches.read([*prompt, *spelled.opening])
    steps: dict[bytes, dict[bytes, float]] = {}
    waiting: dict[bytes, list[int]] = {}  # tokens behind the opening, by state
    skipped = len(spelled.opening)
    for text, state in spelled.states.items():
        if len(state.tokens) == skipped:
            steps[text] = _log_chances(state, logits, temperature)
        else:
            waiting[text] = state.tokens[skipped:]
    base = len(prompt) + skipped
    read = base - cached
    for group in _groups(waiting):
        paths = _longest([waiting[text] for text in group])
        starts = np.cumsum([0, *map(len, paths)])
        keep = []
        for text in group:
            tokens = waiting[text]
            owner = next(index for index, path in enumerate(paths) if path[: len(tokens)] == tokens)
            keep.append(int(starts[owner]) + len(tokens) - 1)
        rows = branches.forward(
            [token for path in paths for token in path],
            [owner for owner, path in enumerate(paths) for _ in path],
            [base + place for path in paths for place in range(len(path))],
            keep,
        )
        for text, row in zip(group, rows, strict=True):
            steps[text] = _log_chances(spelled.states[text], row, temperature)
        branches.rewind()
        read += int(starts[-1])
    return steps, read


def _admitted(states: dict[bytes, _State], first: bytes, text: bytes) -> bool:
    """Whether steps lead from the first state to `text`."""
    reached = {first}
    for state in sorted(states, key=len):
        if state in reached:
            reached |= {after for after in states[state].steps if text.startswith(after)}
    return text in reached


def _log_chances(state: _State, logits: Tensor, temperature: float) -> dict[bytes, float]:
    """The log-probability of every step from a state, from the logits [vocab] behind it."""
    scores = logits[torch.from_numpy(state.legal)].double() / max(temperature, GREEDY)
    if not torch.isfinite(scores).any():
        raise BrainError("the model gives no legal token a finite score")
    chances = scores.log_softmax(0)
    return {after: float(chances[places].logsumexp(0)) for after, places in state.steps.items()}


def _log_probability(steps: dict[bytes, dict[bytes, float]], first: bytes, text: bytes) -> float:
    """The sum over all ways from the first state to `text`, in logarithms."""
    arrived: dict[bytes, list[float]] = {first: [0.0]}
    for state in sorted((each for each in steps if text.startswith(each)), key=len):
        if state in arrived:
            total = float(logsumexp(arrived[state]))
            for after, chance in steps[state].items():
                if text.startswith(after):
                    arrived.setdefault(after, []).append(total + chance)
    return float(logsumexp(arrived[text]))


def _groups(waiting: dict[bytes, list[int]]) -> list[list[bytes]]:
    """States in groups of `TOGETHER` at the most, those with a common beginning beside each other."""
    ordered = sorted(waiting, key=lambda text: waiting[text])
    return [ordered[start : start + TOGETHER] for start in range(0, len(ordered), TOGETHER)]


def _longest(paths: list[list[int]]) -> list[list[int]]:
    """The paths that are not the beginning of another one; the others are read on the way."""
    ordered = sorted(paths)
    return [
        path
        for path, after in zip(ordered, [*ordered[1:], []], strict=True)
        if os.path.commonprefix([path, after]) != path
    ]
