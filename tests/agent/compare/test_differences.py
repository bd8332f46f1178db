"""Two arms side by side: over seeds, in tokens, and what the brain is worth beside chance."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.differences import (
    best_so_far,
    brain_worth,
    first_reached,
    mean_curve,
    over_seeds,
    paired_runs,
    pooled_yields,
    reach,
    reached,
)
from self_pruner.agent.compare.figures import KL, PERPLEXITY, RECALIBRATED, ComparedArms
from self_pruner.agent.compare.results import CurvePoint
from tests.agent.compare.invented import curve, proposer, results, run_result, steady


def compared(*runs, **values):
    return ComparedArms(results(runs, **values))


def seeds(arm, perplexities, **values):
    return [run_result(arm, value, seed=seed, **values) for seed, value in enumerate(perplexities)]


def test_runs_are_paired_by_seed():
    found = compared(*seeds("hybrid", [30.0, 31.0, 32.0]), *seeds("evolution", [40.0, 41.0])[::-1])
    pairs = paired_runs(found, "hybrid", "evolution", 0.3)
    assert [(one.seed, other.seed) for one, other in pairs] == [(0, 0), (1, 1)]


def test_a_closed_form_is_paired_with_every_seed_either_way_round():
    found = compared(*seeds("hybrid", [20.0, 40.0]), run_result("owl", 50.0))
    assert [(one.seed, other.arm) for one, other in paired_runs(found, "hybrid", "owl", 0.3)] == [
        (0, "owl"),
        (1, "owl"),
    ]
    one, other = over_seeds(found, "hybrid", "owl", PERPLEXITY), over_seeds(found, "owl", "hybrid", PERPLEXITY)
    assert math.exp(one.mean) == pytest.approx(math.sqrt(0.4 * 0.8))
    assert other.mean == pytest.approx(-one.mean)


def test_two_closed_forms_are_not_tested_over_seeds():
    found = compared(run_result("owl", 50.0), run_result("flap", 40.0), run_result("flap", 60.0, sparsity=0.5))
    test = over_seeds(found, "owl", "flap", PERPLEXITY)
    assert (test.p, test.n) == (None, 1)
    assert math.exp(test.mean) == pytest.approx(1.25)


def test_ratios_of_perplexity_and_differences_of_kl():
    found = compared(*seeds("hybrid", [30.0] * 3), *seeds("evolution", [33.0] * 3))
    assert math.exp(over_seeds(found, "hybrid", "evolution", PERPLEXITY).mean) == pytest.approx(30 / 33)
    assert over_seeds(found, "hybrid", "evolution", KL).mean == pytest.approx(math.log(30 / 33))
    assert over_seeds(found, "hybrid", "evolution", RECALIBRATED) is None


def test_sparsities_count_the_same_where_runs_are_missing():
    found = compared(
        *seeds("hybrid", [30.0, 30.0, 30.0], sparsity=0.2),
        *seeds("evolution", [60.0, 60.0, 60.0], sparsity=0.2),
        *seeds("hybrid", [30.0], sparsity=0.5),
        *seeds("evolution", [240.0], sparsity=0.5),
    )
    test = over_seeds(found, "hybrid", "evolution", PERPLEXITY)
    assert math.exp(test.mean) == pytest.approx(0.25)  # the geometric mean of a half and an eighth
    assert (test.n, test.least_p) == (4, 0.125)


def test_arms_without_a_common_run_are_not_compared():
    found = compared(run_result("hybrid", 30.0, seed=0), run_result("evolution", 30.0, seed=1))
    assert over_seeds(found, "hybrid", "evolution", PERPLEXITY) is None


def test_tokens_to_reach_another_arms_end_by_sparsity():
    found = compared(
        run_result("hybrid", 30.0, sparsity=0.2, curve=curve([1.0, 0.5, 0.4, 0.3])),
        run_result("hybrid", 30.0, sparsity=0.5, curve=curve([1.0, 0.9, 0.8, 0.7])),
        run_result("evolution", 30.0, sparsity=0.2, curve=curve([1.0, 0.9, 0.8, 0.5])),
        run_result("evolution", 30.0, sparsity=0.5, curve=curve([1.0, 0.9, 0.8, 0.7])),
        run_result("uniform", 30.0, sparsity=0.5, curve=curve([1.0])),
    )
    by_sparsity = reached(found, "hybrid", "evolution")
    assert by_sparsity == {0.2: 0.5, 0.5: 1.0}
    assert reached(found, "evolution", "hybrid") == {0.2: math.inf, 0.5: 1.0}  # it never was as good at 20%
    assert reached(found, "hybrid", "uniform") == {}  # a closed form has no curve, whatever was recorded


# --- in tokens


def points(*pairs):
    return [CurvePoint(cost=cost, seconds=0.0, fitness=fitness) for cost, fitness in pairs]


def test_a_staircase_never_rises_and_is_in_the_order_of_cost():
    found = best_so_far(points((30, 0.9), (10, 1.0), (20, 0.8), (40, 0.7)))
    assert found == [(10, 1.0), (20, 0.8), (30, 0.8), (40, 0.7)]


def test_of_two_points_at_one_cost_the_better_one_stands():
    assert best_so_far(points((10, 0.9), (10, 0.7), (10, 0.8))) == [(10, 0.7)]


def test_the_mean_starts_where_all_have_begun_and_ended_runs_stay():
    one, other = [(10, 1.0), (30, 0.6)], [(20, 0.8), (50, 0.2)]
    assert mean_curve([one, other]) == [
        (20, pytest.approx(0.9)),
        (30, pytest.approx(0.7)),
        (50, pytest.approx(0.4)),
    ]


def test_the_mean_of_nothing_is_nothing():
    assert mean_curve([]) == [] and mean_curve([[]]) == []
    assert reach([], [[(10, 1.0)]]) is None and reach([[(10, 1.0)]], []) is None


STAIRS = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=6), min_size=1, max_size=4
)


@steady
@given(STAIRS)
def test_the_mean_is_at_every_cost_the_mean_of_the_bests(runs):
    curves = [best_so_far(points(*run)) for run in runs]
    found = dict(mean_curve(curves))
    for cost in range(max(min(cost for cost, _ in run) for run in runs), 51):
        bests = [min(fitness for at, fitness in run if at <= cost) for run in runs]
        known = [at for at in found if at <= cost]
        assert found[max(known)] == pytest.approx(sum(bests) / len(bests))


@steady
@given(STAIRS)
def test_an_arm_reaches_its_own_end_at_the_share_of_one(runs):
    curves = [best_so_far(points(*run)) for run in runs]
    assert reach(curves, curves) == 1.0


def test_the_same_quality_at_a_third_of_the_tokens():
    fast = [[(100, 1.0), (200, 0.5)], [(100, 0.9), (200, 0.3)]]
    slow = [[(100, 1.0), (600, 0.4), (900, 0.4)]]
    assert reach(fast, slow) == 200 / 600
    assert reach(slow, [[(50, 0.39)]]) == math.inf


def test_a_target_in_the_midst_of_a_step_is_reached_with_the_step():
    assert first_reached([(10, 1.0), (20, 0.5)], 0.7) == 20
    assert first_reached([(10, 1.0), (20, 0.5)], 0.4) is None


# --- who proposed what improved


def run(*rows, arm="hybrid", seed=0):
    return run_result(arm, 30.0, seed=seed, yields=list(rows))


def test_yields_add_up_over_runs_and_generations_in_the_order_of_proposers():
    first = run(proposer("switch", 10, 4), proposer("brain", 6, 1, generation=1), proposer("brain", 4, 2, generation=2))
    second = run(proposer("brain", 5, 1), proposer("brain", 0, 0, "initialise", made=7, survived=3), seed=1)
    found = pooled_yields(ComparedArms(results([first, second])), "hybrid")
    assert found == [
        proposer("brain", 0, 0, "initialise", made=7, survived=3),
        proposer("brain", 15, 4, survived=1),
        proposer("switch", 10, 4),
    ]


def test_proposers_that_no_arm_names_come_last():
    made = run(*(proposer(name, 1, 0) for name in ("memory", "chance", "brain")))
    found = pooled_yields(ComparedArms(results([made])), "hybrid")
    assert [one.proposed_by for one in found] == ["brain", "chance", "memory"]


def test_the_brain_is_compared_with_chance_only_where_both_were_measured():
    found = brain_worth(
        [run(proposer("brain", 20, 10), proposer("chance", 10, 2)), run(proposer("brain", 50, 0), arm="self")]
    )
    assert found.shares == (0.5, 0.2)
    assert (found.brain.n, found.brain.other_n, found.strata) == (20, 10, 1)
    assert found.pooled.value == pytest.approx(0.3)


def test_operators_of_one_proposer_count_together():
    found = brain_worth(
        [run(proposer("brain", 10, 5), proposer("brain", 10, 1, "crossover"), proposer("chance", 10, 2))]
    )
    assert found.shares == (0.3, 0.2)


def test_generations_are_compared_within_themselves():
    # the brain made more when it was easy; in either generation it is as good as chance
    easy = proposer("brain", 30, 15, generation=1), proposer("chance", 10, 5, generation=1)
    hard = proposer("brain", 10, 1, generation=2), proposer("chance", 30, 3, generation=2)
    found = brain_worth([run(*easy, *hard)])
    assert found.pooled.value == pytest.approx(0.2)
    assert found.within.value == pytest.approx(0.0)
    assert (found.strata, found.verdict) == (2, "not distinguished")


def test_verdicts_on_the_brain():
    assert brain_worth([run(proposer("brain", 40, 30), proposer("chance", 40, 5))]).verdict == "better"
    assert brain_worth([run(proposer("brain", 40, 5), proposer("chance", 40, 30))]).verdict == "worse"
    assert brain_worth([run(proposer("brain", 40, 20), proposer("chance", 40, 19))]).verdict == "not distinguished"
    assert brain_worth([run(proposer("brain", 2, 2), proposer("chance", 2, 0))]).verdict == "too few"


def test_without_both_nothing_is_known():
    assert brain_worth([]) is None
    assert brain_worth([run(proposer("brain", 10, 5))]) is None
    assert brain_worth([run(proposer("brain", 10, 5), proposer("chance", 0, 0))]) is None
    assert brain_worth([run(proposer("brain", 5, 1, generation=1), proposer("chance", 5, 1, generation=2))]) is None
