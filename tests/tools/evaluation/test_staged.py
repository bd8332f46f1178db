from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.memory.errors import SettingsError
from self_pruner.tools.evaluation.staged import missing, sequences_of, stages, walks


def test_a_fidelity_is_the_first_sequences() -> None:
    assert sequences_of(1024, 512, 8) == range(2)
    assert stages([1024, 4096], 512, 8) == (range(2), range(8))
    assert sequences_of(1, 1, 8) == range(1)  # the smallest there can be


@pytest.mark.parametrize("fidelity", [0, -512, 100, 1000, 513])
def test_a_fidelity_between_sequences_is_refused(fidelity: int) -> None:
    with pytest.raises(SettingsError, match=f"multiple of the sequence length 512, got {fidelity}"):
        sequences_of(fidelity, 512, 8)


def test_a_fidelity_beyond_the_text_says_how_much_there_is() -> None:
    with pytest.raises(SettingsError, match="4608 tokens is more than the fitness text holds: 4096 tokens"):
        sequences_of(4608, 512, 8)


@pytest.mark.parametrize("fidelities", [[], [1024, 1024], [4096, 1024]])
def test_fidelities_must_rise(fidelities: list[int]) -> None:
    with pytest.raises(SettingsError, match="rising"):
        stages(fidelities, 512, 8)


@given(st.integers(0, 12), st.integers(0, 12), st.sets(st.integers(0, 14)))
def test_what_is_missing_is_exactly_what_is_not_known_in_fewest_ranges(a: int, b: int, known: set[int]) -> None:
    needed = range(min(a, b), max(a, b))
    gaps = missing(needed, known)
    assert [sequence for gap in gaps for sequence in gap] == [each for each in needed if each not in known]
    assert all(earlier.stop < later.start for earlier, later in zip(gaps, gaps[1:], strict=False))


def test_candidates_that_lack_the_same_sequences_walk_together() -> None:
    known: dict[str, set[int]] = {"a": {0, 1}, "b": set(), "c": {0, 1}, "d": {0, 1, 2, 3}, "e": {1}}
    assert walks(known, range(4)) == [
        (range(2, 4), ["a", "c", "e"]),
        (range(4), ["b"]),
        (range(1), ["e"]),
    ]
