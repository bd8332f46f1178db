"""Quotas: floors, sums, and shares that follow the measured yield."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.quotas import FLOOR, Record, credit, quotas

MAKERS = ("brain", "chance", "switch", "cross", "model")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(MAKERS),
            st.integers(0, 6).flatmap(lambda made: st.builds(Record, st.just(made), st.integers(0, made))),
        ),
        max_size=6,
    ),
    st.integers(0, 40),
    st.integers(1, len(MAKERS)),
)
def test_quotas_sum_up_and_keep_every_floor(history, offspring, count):
    given_ = quotas(history, MAKERS[:count], offspring)
    assert sum(given_.values()) == offspring
    assert all(share >= (FLOOR if offspring >= count else 0) for share in given_.values())


def test_without_history_all_makers_are_alike():
    assert set(quotas([], MAKERS, 15).values()) == {3}


def test_a_maker_whose_offspring_survive_gets_more():
    history = [{"brain": Record(3, 0), "model": Record(3, 3), "switch": Record(3, 1)}] * 4
    shares = quotas(history, ("brain", "switch", "model"), 12)
    assert shares["model"] > shares["switch"] >= shares["brain"] >= FLOOR


def test_an_old_success_weighs_less_than_a_new_one():
    old = [{"switch": Record(4, 4), "model": Record(4, 0)}]
    new = [{"switch": Record(4, 0), "model": Record(4, 4)}]
    credits = credit(old + new, ("switch", "model"))
    assert credits["model"] > credits["switch"]


def test_more_makers_than_offspring_go_to_the_best():
    history = [{"model": Record(4, 4), "brain": Record(4, 0), "switch": Record(4, 2)}]
    assert quotas(history, ("brain", "switch", "model"), 1) == {"brain": 0, "switch": 0, "model": 1}


@pytest.mark.parametrize("offspring", [0, -1])
def test_nothing_wanted_is_nothing_given(offspring):
    assert quotas([], MAKERS, offspring) == dict.fromkeys(MAKERS, 0)
