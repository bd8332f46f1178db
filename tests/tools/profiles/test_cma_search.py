"""CMA-ES on relaxed widths: on budget, repeatable from its history alone, and it learns."""

import itertools

import numpy as np
import pytest

from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.cma_search import ask, projected, relaxed
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.space import Space

SPACE = Space(n_layers=4, n_groups=4, n_blocks=16, group_params=400, block_params=100, fixed_params=500, mlp_unit=8)
BUDGET = Budget.from_sparsity(SPACE, 0.4)


def first_layers_matter(profile):
    return sum((16 - width) * weight for width, weight in zip(profile.mlp, (4, 2, 1, 0), strict=True)) / 100


def test_a_profile_survives_relaxing_and_projecting():
    profile = uniform(BUDGET)
    assert projected(BUDGET, relaxed(BUDGET, profile)) == profile


def test_all_that_it_asks_for_is_on_budget():
    asked = ask(BUDGET, uniform(BUDGET), [8], lambda profile: None, seed=0)
    assert len(asked) == 8 and all(BUDGET.holds(profile) for profile in asked)


def test_the_same_history_gives_the_same_question_and_leaves_other_generators_alone():
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    first = ask(BUDGET, uniform(BUDGET), [6, 6, 6], first_layers_matter, seed=3)
    assert (np.random.get_state()[1] == before).all()
    assert first == ask(BUDGET, uniform(BUDGET), [6, 6, 6], first_layers_matter, seed=3)
    assert first != ask(BUDGET, uniform(BUDGET), [6, 6, 6], first_layers_matter, seed=4)


def test_it_learns_from_what_it_is_told():
    def mean(generation):
        asked = ask(BUDGET, uniform(BUDGET), [10] * generation, first_layers_matter, seed=0)
        return sum(map(first_layers_matter, asked)) / len(asked)

    assert mean(25) < mean(1) - 0.2


@pytest.mark.parametrize("initial, offspring", list(itertools.product((1, 2, 4, 7, 12), (1, 2, 3, 5))))
def test_any_pair_of_sizes_can_be_asked_for(initial, offspring):
    sizes = [initial] + [offspring] * 9
    assert len(ask(BUDGET, uniform(BUDGET), sizes, first_layers_matter, seed=0)) == offspring


def test_generations_that_are_too_small_alone_are_learned_from_together():
    def mean(generations):
        asked = ask(BUDGET, uniform(BUDGET), [12, *[2] * generations, 10], first_layers_matter, seed=0)
        return sum(map(first_layers_matter, asked)) / len(asked)

    assert mean(150) < mean(1) - 0.2
