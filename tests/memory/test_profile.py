"""A profile is two widths a layer, and its text form says exactly which."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.profile import Profile

PROFILE = Profile((3, 1, 2), (48, 40, 12))


def test_parts_of_different_length_are_refused_with_both_lengths():
    with pytest.raises(ValueError, match="as many attention as MLP widths, got 3 and 2"):
        Profile((3, 1, 2), (48, 40))


def test_it_tells_its_layers_and_the_widths_of_either_part():
    assert PROFILE.n_layers == 3
    assert PROFILE.widths("attention") == (3, 1, 2)
    assert PROFILE.widths("mlp") == (48, 40, 12)


def test_one_width_is_changed_and_every_other_kept():
    assert PROFILE.with_width(0, "attention", 2) == Profile((2, 1, 2), (48, 40, 12))
    assert PROFILE.with_width(2, "mlp", 11) == Profile((3, 1, 2), (48, 40, 11))


def test_the_key_is_the_attention_widths_a_bar_and_the_mlp_widths():
    assert PROFILE.key() == "3,1,2|48,40,12"


widths = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=4)


@settings(deadline=None, derandomize=True)
@given(widths, widths)
def test_keys_are_equal_exactly_when_profiles_are_and_are_read_back(one, other):
    first, second = (Profile(*zip(*pairs, strict=True)) for pairs in (one, other))
    assert (first.key() == second.key()) == (first == second)
    assert Profile.from_key(first.key()) == first


@pytest.mark.parametrize("text", ["3,1,2", "", "|", "3,x|1,2", "3|1|2", "3,1|48"])
def test_any_other_text_is_no_key(text):
    with pytest.raises(ValueError):
        Profile.from_key(text)


def test_a_text_without_the_bar_is_shown():
    with pytest.raises(ValueError, match="not a profile key: '3,1,2'"):
        Profile.from_key("3,1,2")
