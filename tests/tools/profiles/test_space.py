"""The space of profiles: what lies in it, and what a profile of it costs, counted by hand."""

import pytest

from self_pruner.memory.profile import Profile
from self_pruner.tools.profiles.space import Space

SPACE = Space(
    n_layers=2, n_groups=4, n_blocks=6, group_params=50, block_params=7, fixed_params=1000, mlp_unit=8, attention_unit=2
)
PROFILE = Profile((3, 1), (6, 2))


def test_each_part_has_its_own_units_and_parameters():
    assert (SPACE.units("attention"), SPACE.units("mlp")) == (4, 6)
    assert (SPACE.unit_params("attention"), SPACE.unit_params("mlp")) == (50, 7)


def test_the_two_ends_of_the_space():
    assert SPACE.dense() == Profile((4, 4), (6, 6))
    assert SPACE.smallest() == Profile((1, 1), (1, 1))


def test_parameters_are_those_of_the_units_kept_and_the_fixed_ones():
    assert SPACE.prunable_params(PROFILE) == 4 * 50 + 8 * 7
    assert SPACE.params(PROFILE) == 1000 + 4 * 50 + 8 * 7


def test_sparsity_is_the_share_of_the_prunable_parameters_that_is_gone():
    assert SPACE.sparsity(SPACE.dense()) == 0
    assert SPACE.sparsity(PROFILE) == pytest.approx(1 - 256 / 484)


def test_sizes_are_counted_in_groups_and_channels_as_a_config_has_them():
    assert SPACE.sizes(PROFILE) == [(6, 48), (2, 16)]
    assert Space(2, 4, 6, 50, 7, 1000, 8).sizes(PROFILE) == [(3, 48), (1, 16)]  # a unit is one group unless said


@pytest.mark.parametrize("profile", [SPACE.dense(), SPACE.smallest(), PROFILE])
def test_every_width_from_one_unit_to_the_dense_one_is_in_it(profile):
    assert SPACE.contains(profile)


@pytest.mark.parametrize(
    "profile",
    [
        Profile((0, 1), (1, 1)),
        Profile((1, 5), (1, 1)),
        Profile((1, 1), (0, 1)),
        Profile((1, 1), (1, 7)),
        Profile((1,), (1,)),
        Profile((1, 1, 1), (1, 1, 1)),
    ],
)
def test_no_other_width_and_no_other_number_of_layers_is(profile):
    assert not SPACE.contains(profile)
