"""Stretches of layers and the shifts between them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.profiles.shifts import AMOUNTS, SHARES, Stretch, shifted, stretches, worth
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.prune_model import PruneArguments, propose

SPACE = Space(n_layers=7, n_groups=4, n_blocks=24, group_params=48, block_params=9, fixed_params=1000, mlp_unit=8)
BUDGET = Budget.from_sparsity(SPACE, 0.3)
profiles = st.builds(
    Profile, st.tuples(*[st.integers(1, 4)] * SPACE.n_layers), st.tuples(*[st.integers(1, 24)] * SPACE.n_layers)
)


@pytest.mark.parametrize(("layers", "count"), [(30, 6), (7, 6), (3, 6), (1, 6), (80, 6), (7, 3)])
def test_stretches_are_every_place_once_and_of_nearly_one_length(layers, count):
    found = stretches(layers, count)
    places = [place for one in found for place in one.places]
    assert sorted(places) == sorted((layer, part) for layer in range(layers) for part in PARTS)
    lengths = [len(one.layers) for one in found]
    assert len(found) == 2 * min(layers, count) and max(lengths) - min(lengths) <= 1
    assert [Stretch.of(str(one), layers) for one in found] == found


@pytest.mark.parametrize("text", ["mlp", "mlp 7", "mlp 3-2", "heads 1", "mlp -1", "mlp 1-9", "", "mlp 1-2-3", "mlp ²"])
def test_what_is_no_stretch_is_said_in_a_sentence(text):
    with pytest.raises(ToolError, match="is no stretch: write attention or mlp and layers from 0 to 6"):
        Stretch.of(text, 7)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    profile=profiles,
    pair=st.tuples(st.sampled_from(stretches(7, 3)), st.sampled_from(stretches(7, 3))).filter(lambda p: p[0] != p[1]),
    amount=st.sampled_from(AMOUNTS),
)
def test_a_shift_moves_weight_from_one_stretch_to_the_other_and_nothing_else(profile, pair, amount):
    take, give = pair
    loss, gain = take.room(SPACE, profile)[0], give.room(SPACE, profile)[1]
    if not loss or not gain:
        with pytest.raises(ToolError, match="nothing to give" if not loss else "whole already"):
            shifted(BUDGET, profile, take, give, SHARES[amount])
        return
    after = shifted(BUDGET, profile, take, give, SHARES[amount])
    assert SPACE.contains(after)
    taken, given_ = take.kept(profile) - take.kept(after), give.kept(after) - give.kept(profile)
    assert 1 <= taken <= loss and 1 <= given_ <= gain
    for part in PARTS:
        for layer, (old, new) in enumerate(zip(profile.widths(part), after.widths(part), strict=True)):
            if (layer, part) in take.places:
                assert new <= old
            elif (layer, part) in give.places:
                assert new >= old
            else:
                assert new == old
    # as much as whole units allow; where one unit is more than what was asked for, one
    prices = {part: BUDGET.unit_price(part) for part in PARTS}
    assert abs(taken * prices[take.part] - given_ * prices[give.part]) <= max(prices.values()) or 1 in (taken, given_)
    asked = SHARES[amount] * SPACE.units(take.part) * len(take.layers)
    assert taken <= max(1, round(asked))


def test_layers_of_a_stretch_change_alike():
    start = Profile((4,) * 7, (20,) * 7)
    after = shifted(BUDGET, start, Stretch("mlp", 4, 6), Stretch("mlp", 0, 2), SHARES["much"])
    assert after.mlp == (23, 23, 23, 20, 17, 17, 17)


def test_a_stretch_gives_nothing_to_its_own_layers():
    with pytest.raises(ToolError, match="layers in common"):
        shifted(BUDGET, Profile((4,) * 7, (20,) * 7), Stretch("mlp", 0, 2), Stretch("mlp", 2, 3), 0.1)


def test_the_worth_of_a_stretch_is_what_its_layers_lose_and_gain_by_weight():
    linear = Costs(
        tuple(tuple(0.48 * (4 - width) for width in range(5)) for _ in range(7)),
        tuple(tuple(0.09 * (24 - width) for width in range(25)) for _ in range(7)),
    )
    profile = Profile((2,) * 7, (20,) * 7)
    for one in stretches(7, 3):
        cut, grow = worth(BUDGET, linear, profile, one)
        assert cut == pytest.approx(0.09) and grow == pytest.approx(0.09)  # by an MLP unit's worth, in both parts
    assert worth(BUDGET, linear, Profile((1,) * 7, (24,) * 7), Stretch("attention", 0, 2))[0] == 0.0
    assert worth(BUDGET, linear, Profile((1,) * 7, (24,) * 7), Stretch("mlp", 0, 2))[1] == 0.0


def test_prune_model_makes_a_shift_on_budget_and_refuses_what_is_none():
    start = BUDGET.project((4,) * 7, (20,) * 7).profile
    shift = {"take": "mlp 4-6", "give": "attention 0-1", "amount": "much"}
    made = propose(BUDGET, PruneArguments(operator="mutation", parents=["c1"], shift=shift), [start], "brain")
    child = Profile.from_key(made["profile"])
    assert BUDGET.holds(child) and sum(child.mlp[4:]) < sum(start.mlp[4:])
    assert made["detail"] == "much of mlp 4-6 to attention 0-1"
    wrong = PruneArguments(operator="mutation", parents=["c1"], shift={"take": "mlp 4-9", "give": "mlp 0"})
    with pytest.raises(ToolError, match="'mlp 4-9' is no stretch"):
        propose(BUDGET, wrong, [start], "brain")
