"""Staged evaluation: many candidates on few tokens, the better half on more, all on the same ones.

A fidelity is a number of tokens, and always means the first sequences of the fitness text: what a candidate was
measured on at a low fidelity is part of what a higher one needs, and two candidates of one fidelity can be compared
sequence by sequence. Such staged selection is as in Sieberling et al., "EvoPress" (arXiv 2410.14649). Pure integers.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from self_pruner.memory.errors import SettingsError

Candidate = TypeVar("Candidate", bound=Hashable)


def sequences_of(fidelity: int, length: int, available: int) -> range:
    """The sequences a fidelity stands for: the first `fidelity / length` ones.

    Args:
        fidelity: tokens.
        length: tokens a sequence.
        available: sequences of the fitness text.

    Raises:
        SettingsError: not a positive multiple of the sequence length, or more than there is.
    """
    if fidelity < 1 or fidelity % length:
        raise SettingsError(f"a fidelity must be a positive multiple of the sequence length {length}, got {fidelity}.")
    if fidelity > length * available:
        raise SettingsError(
            f"a fidelity of {fidelity} tokens is more than the fitness text holds: {length * available} tokens."
        )
    return range(fidelity // length)


def stages(fidelities: Sequence[int], length: int, available: int) -> tuple[range, ...]:
    """The sequences of every stage, fewest first.

    Raises:
        SettingsError: no fidelity, one that `sequences_of` refuses, or an order that does not rise.
    """
    if not fidelities or any(later <= earlier for earlier, later in pairwise(fidelities)):
        raise SettingsError(f"fidelities must be one or more rising numbers of tokens, got {list(fidelities)}.")
    return tuple(sequences_of(fidelity, length, available) for fidelity in fidelities)


def missing(needed: range, known: Collection[int]) -> tuple[range, ...]:
    """The parts of `needed` that are not known yet, as the fewest consecutive ranges."""
    gaps: list[range] = []
    for sequence in needed:
        if sequence in known:
            continue
        if gaps and gaps[-1].stop == sequence:
            gaps[-1] = range(gaps[-1].start, sequence + 1)
        else:
            gaps.append(range(sequence, sequence + 1))
    return tuple(gaps)


def walks(known: Mapping[Candidate, Collection[int]], needed: range) -> list[tuple[range, list[Candidate]]]:
    """Which candidates to measure together on which sequences so that all know `needed` and nothing is measured twice.

    Candidates that lack the same sequences go into one population walk, because only there they share work.

    Args:
        known: the sequences each candidate was measured on already.
        needed: the sequences of the stage.

    Returns:
        (sequences, candidates) in the order of first need; candidates in the order of `known`.
    """
    groups: dict[range, list[Candidate]] = {}
    for candidate, sequences in known.items():
        for gap in missing(needed, sequences):
            groups.setdefault(gap, []).append(candidate)
    return list(groups.items())
