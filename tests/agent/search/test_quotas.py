"""Quotas: floors, sums, and shares that follow the measured yield."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.search.planning.quotas import FLOOR, Tally, credit, places, quotas
from self_pruner.agent.settings.settings import Settings

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


@pytest.mark.parametrize(
    ("share", "brain", "model"), [(None, 1, 6), (0.0, 0, 6), (0.1, 1, 5), (0.3, 2, 4), (0.5, 4, 3), (1.0, 8, 0)]
)
def test_a_share_that_is_set_is_given_first_then_that_of_the_steps_and_the_others_earn_the_rest(share, brain, model):
    history = [{"brain": Tally(4, 0), "model": Tally(4, 0), "chance": Tally(4, 0)}] * 4
    made = places(Settings(brain_share=share), history, ("brain", "chance", "model"), 8)
    assert made == {"brain": brain, "model": model, "chance": 8 - brain - model}


def test_favoured_steps_leave_the_others_half_as_many_places_and_whoever_else_is_favoured_its_part_of_them():
    makers = ("brain", "chance", "model")
    assert places(Settings(), [], makers, 16, ("model",)) == {"model": 14, "brain": 1, "chance": 1}
    assert places(Settings(), [], makers, 24, ("brain",)) == {"model": 18, "brain": 4, "chance": 2}


@pytest.mark.parametrize(
    ("offspring", "made"),
    [
        (1, ("brain", "chance", "model")),  # a single place goes round
        (2, ("brain, model", "chance, model", "brain, model")),
        (3, ("brain, model", "chance, model", "brain, model")),
        (5, ("brain, chance, model",) * 3),
    ],
)
def test_where_places_are_too_few_for_all_each_has_a_turn(offspring, made):
    settings, history, turns = Settings(offspring=offspring, population=1), [], []
    for _ in made:
        shares = places(settings, history, ("brain", "chance", "model"), offspring)
        assert sum(shares.values()) == offspring
        turns.append(", ".join(sorted(one for one, count in shares.items() if count)))
        history.append({one: Tally(1, 1) for one, count in shares.items() if count})
    assert tuple(turns) == made


def test_the_one_place_that_a_last_generation_has_goes_to_the_best():
    history = [{"brain": Tally(1, 0), "chance": Tally(1, 0), "model": Tally(6, 3)}]
    assert places(Settings(), history, ("brain", "chance", "model"), 1) == {"brain": 0, "chance": 0, "model": 1}


def test_steps_of_nobody_else_are_everybody():
    assert places(Settings(), [], ("model",), 8) == {"model": 8}
    assert places(Settings(), [], ("chance", "brain"), 8) == {"brain": 4, "chance": 4}
    assert places(Settings(arm="evolution"), [], ("switch", "cross"), 8) == {"switch": 4, "cross": 4}


@given(st.integers(1, 40), st.one_of(st.none(), st.floats(0, 1)), st.integers(1, 40))
def test_places_sum_up_whatever_is_set(offspring, share, wanted):
    if share is not None and int(share * offspring + 0.5) > 9:
        return
    made = places(
        Settings(offspring=offspring, population=1, brain_share=share), [], ("brain", "chance", "model"), wanted
    )
    assert sum(made.values()) == wanted and min(made.values()) >= 0


def test_where_there_are_always_more_makers_than_offspring_each_has_a_turn_first():
    makers, history, turns = ("brain", "chance", "switch", "cross", "model"), [], []
    for survived in (2, 0, 0, 0):
        shares = quotas(history, makers, 2, full=2)
        turns.append({one for one, count in shares.items() if count})
        assert sum(shares.values()) == 2
        # the brain and cross have nothing new to make, which costs nobody else a turn
        history.append({one: Tally(1, min(1, survived)) for one in turns[-1] - {"brain", "cross"}})
    assert turns[:2] == [{"brain", "chance"}, {"switch", "cross"}]
    assert "model" in turns[2]
    assert quotas(history[:2], makers, 5, full=5) == dict.fromkeys(makers, 1)
