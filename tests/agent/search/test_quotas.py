"""Quotas: floors, sums, and shares that follow the measured yield."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.search.planning.quotas import FLOOR, Tally, credit, quotas, takes_turns

OFFSPRING_PROPOSERS = ("brain", "chance", "switch", "cross", "model")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(OFFSPRING_PROPOSERS),
            st.integers(0, 6).flatmap(lambda made: st.builds(Tally, st.just(made), st.integers(0, made))),
        ),
        max_size=6,
    ),
    st.integers(0, 40),
    st.integers(1, len(OFFSPRING_PROPOSERS)),
)
def test_quotas_sum_up_and_keep_every_floor(history, offspring, count):
    given_ = quotas(history, OFFSPRING_PROPOSERS[:count], offspring)
    assert sum(given_.values()) == offspring
    assert all(share >= (FLOOR if offspring >= count else 0) for share in given_.values())


def test_without_history_all_makers_are_alike():
    assert set(quotas([], OFFSPRING_PROPOSERS, 15).values()) == {3}


def test_a_maker_whose_offspring_survive_gets_more():
    history = [{"brain": Tally(3, 0), "model": Tally(3, 3), "switch": Tally(3, 1)}] * 4
    shares = quotas(history, ("brain", "switch", "model"), 12)
    assert shares["model"] > shares["switch"] >= shares["brain"] >= FLOOR


def test_an_old_success_weighs_less_than_a_new_one():
    old = [{"switch": Tally(4, 4), "model": Tally(4, 0)}]
    new = [{"switch": Tally(4, 0), "model": Tally(4, 4)}]
    credits = credit(old + new, ("switch", "model"))
    assert credits["model"] > credits["switch"]


def test_more_makers_than_offspring_go_to_the_best():
    history = [{"model": Tally(4, 4), "brain": Tally(4, 0), "switch": Tally(4, 2)}]
    assert quotas(history, ("brain", "switch", "model"), 1) == {"brain": 0, "switch": 0, "model": 1}


@pytest.mark.parametrize("offspring", [0, -1])
def test_nothing_wanted_is_nothing_given(offspring):
    assert quotas([], OFFSPRING_PROPOSERS, offspring) == dict.fromkeys(OFFSPRING_PROPOSERS, 0)


def test_credit_is_the_rate_of_survival_pulled_towards_the_common_one():
    history = [{"switch": Tally(4, 4), "model": Tally(4, 0)}, {"model": Tally(2, 1)}]
    credits = credit(history, ("switch", "model", "brain"))
    common = (0.9 * 4 + 1) / (0.9 * 8 + 2)  # a generation weighs 0.9 of the next
    assert credits["switch"] == pytest.approx((0.9 * 4 + 4 * common) / (0.9 * 4 + 4))
    assert credits["model"] == pytest.approx((1 + 4 * common) / (0.9 * 4 + 2 + 4))
    assert credits["brain"] == pytest.approx(common)  # it has made nothing yet


def test_credit_is_never_nothing_even_where_no_offspring_survived():
    credits = credit([{"switch": Tally(4, 0)}], ("switch", "model"))
    assert credits == pytest.approx({"switch": 0.2 / 8, "model": 0.05})
    assert set(credit([], ("switch", "model")).values()) == {0.5}


def test_what_is_left_after_the_floors_goes_by_credit_and_the_last_ones_by_what_rounding_cut():
    history = [{"switch": Tally(12, 12), "model": Tally(4, 0)}]
    # common rate 0.75; credits (12 + 3) / 16 = 0.9375 and 3 / 8 = 0.375; of 7 left 5 and 2
    assert quotas(history, ("switch", "model"), 9) == {"switch": 6, "model": 3}
    assert quotas(history, ("model", "switch"), 8) == {"model": 3, "switch": 5}  # 1.71 and 4.29 of 6
    assert quotas([], ("model", "switch", "brain"), 5) == {"model": 2, "switch": 2, "brain": 1}  # alike: in order


def test_nobody_to_give_to_is_given_nothing():
    assert quotas([], (), 5) == {}


@pytest.mark.parametrize(("share", "brain"), [(0.0, 0), (0.1, 1), (0.3, 2), (0.5, 4), (1.0, 8)])
def test_a_fixed_share_is_given_first_and_the_others_earn_the_rest(share, brain):
    history = [{"brain": Tally(4, 4), "model": Tally(4, 4), "switch": Tally(4, 0)}]
    shares = quotas(history, ("model", "brain", "switch"), 8, fixed={"brain": share})
    assert list(shares) == ["model", "brain", "switch"]
    assert shares["brain"] == brain
    assert shares["model"] + shares["switch"] == 8 - brain
    assert shares["model"] >= shares["switch"]


def test_where_there_are_always_more_makers_than_offspring_each_has_a_turn_first():
    makers, history, turns = ("brain", "chance", "switch", "cross", "model"), [], []
    for survived in (2, 0, 0, 0):
        shares = quotas(history, makers, 2, in_turn=True)
        turns.append({one for one, count in shares.items() if count})
        assert sum(shares.values()) == 2
        # the brain and cross have nothing new to make, which costs nobody else a turn
        history.append({one: Tally(1, min(1, survived)) for one in turns[-1] - {"brain", "cross"}})
    assert turns[:2] == [{"brain", "chance"}, {"switch", "cross"}]
    assert "model" in turns[2]
    assert quotas(history[:2], makers, 5, in_turn=True) == dict.fromkeys(makers, 1)


def test_who_has_a_turn_besides_the_one_of_a_fixed_share():
    makers = ("brain", "chance", "switch", "cross")
    first, second = (quotas([{}] * held, makers, 4, fixed={"brain": 0.5}, in_turn=True) for held in (0, 1))
    assert first == {"brain": 2, "chance": 1, "switch": 1, "cross": 0}
    assert second["cross"] == 1


@pytest.mark.parametrize(
    ("offspring", "share", "turns"),
    [
        (8, None, False),
        (5, None, False),
        (4, None, True),
        (8, 0.5, False),
        (8, 0.6, True),
        (8, 1.0, True),
        (4, 0, False),
    ],
)
def test_turns_are_taken_where_the_places_that_are_left_are_fewer_than_those_who_earn_theirs(offspring, share, turns):
    fixed = {} if share is None else {"brain": share}
    assert takes_turns(OFFSPRING_PROPOSERS, offspring, fixed) == turns  # four of them beside the brain
    assert takes_turns(("model", "switch"), 2, {"brain": 1.0}) is False  # whose share is of nobody here


def test_a_fixed_share_of_somebody_who_makes_none_here_changes_nothing():
    assert quotas([], ("model", "switch"), 5, fixed={"brain": 0.5}) == quotas([], ("model", "switch"), 5)
