"""Arms put in order and side by side: over seeds, texts and sparsities, and in tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.figures import (
    KL,
    PERPLEXITY,
    RECALIBRATED,
    ComparedArms,
    best_so_far,
    differences,
    first_reached,
    mean_curve,
    over_seeds,
    paired_runs,
    reach,
    staircases,
    unmeasured,
)
from self_pruner.agent.compare.kinds import kind_of
from self_pruner.agent.compare.results import CurvePoint
from tests.agent.compare.invented import curve, results, run_result, steady


def compared(*runs, **values):
    return ComparedArms(results(runs, **values))


def test_perplexity_is_a_geometric_mean_over_texts_seeds_and_sparsities():
    found = compared(
        run_result("evolution", [10.0, 20.0, 40.0], sparsity=0.2, seed=0),
        run_result("evolution", [20.0, 40.0, 80.0], sparsity=0.2, seed=1),
        run_result("evolution", [80.0, 160.0, 320.0], sparsity=0.5, seed=0),
        run_result("evolution", [80.0, 160.0, 320.0], sparsity=0.5, seed=1),
    )
    assert found.estimate("evolution", 0.2, PERPLEXITY).value == pytest.approx(20 * math.sqrt(2))
    assert found.estimate("evolution", None, PERPLEXITY).value == pytest.approx(math.sqrt(20 * math.sqrt(2) * 160))
    assert found.on_text("evolution", 0.2, "wikitext2", PERPLEXITY).value == pytest.approx(15.0)  # arithmetic here
    assert found.on_text("evolution", None, "wikitext2", PERPLEXITY).value == pytest.approx(
        math.sqrt(math.sqrt(200) * 80)
    )
    assert found.on_text("evolution", None, "wikitext2", KL).value == pytest.approx(
        (math.log(10 / 20) / 2 + math.log(20 / 20) / 2 + math.log(80 / 20)) / 2
    )


def test_an_arm_that_lacks_a_sparsity_is_not_ranked_but_listed():
    found = compared(
        run_result("owl", 30.0, sparsity=0.2),
        run_result("hybrid", 25.0, sparsity=0.2),
        run_result("hybrid", 90.0, sparsity=0.5),
    )
    assert found.ranked == ["hybrid"]
    assert found.ordered == ["hybrid", "owl"]
    assert found.estimate("owl", None, PERPLEXITY) is None
    assert found.on_text("owl", None, "c4", KL) is None


@pytest.mark.parametrize("bad", [math.inf, 0.0])
def test_a_run_whose_perplexity_is_no_number_has_no_figure(bad):
    broken = run_result("evolution", 30.0).model_copy(
        update={"texts": [one.model_copy(update={"perplexity": bad}) for one in run_result("evolution", 30.0).texts]}
    )
    found = compared(broken, run_result("hybrid", 25.0))
    assert found.estimate("evolution", 0.3, PERPLEXITY) is None
    assert found.ranked == ["hybrid"]


def test_a_run_that_lacks_a_text_has_no_mean():
    run = run_result("evolution", 30.0)
    found = compared(run.model_copy(update={"texts": run.texts[:2]}))
    assert found.estimate("evolution", 0.3, PERPLEXITY) is None
    assert found.on_text("evolution", 0.3, "wikitext2", PERPLEXITY).value == pytest.approx(30.0)
    assert found.on_text("evolution", 0.3, "passages", PERPLEXITY) is None


def test_the_seeds_that_succeeded_do_not_stand_for_one_that_lacks_a_text():
    whole, broken = run_result("hybrid", 20.0, seed=0), run_result("hybrid", 90.0, seed=1)
    found = compared(whole, broken.model_copy(update={"texts": broken.texts[:2]}), run_result("owl", 40.0))
    assert found.estimate("hybrid", 0.3, PERPLEXITY) is None and found.estimate("hybrid", None, PERPLEXITY) is None
    assert found.on_text("hybrid", 0.3, "passages", PERPLEXITY) is None
    assert found.ranked == ["owl"] and found.ordered == ["owl", "hybrid"]


def test_recalibrated_figures_are_there_where_all_texts_were_refitted():
    found = compared(run_result("hybrid", 30.0, recalibrated=27.0), run_result("owl", 40.0))
    assert found.estimate("hybrid", 0.3, RECALIBRATED).value == pytest.approx(27.0)
    assert found.estimate("owl", 0.3, RECALIBRATED) is None


def test_arms_are_ranked_by_perplexity_and_equals_by_the_order_asked_for():
    found = compared(run_result("owl", 30.0), run_result("self", 25.0), run_result("flap", 30.0))
    assert found.ranked == ["self", "owl", "flap"]


def test_the_headline_is_hybrid_then_who_asks_the_brain_then_who_searches():
    runs = [run_result(arm, 30.0 + place) for place, arm in enumerate(("uniform", "cma", "evolution"))]
    assert compared(*runs).headline == "cma"
    assert compared(*runs, run_result("self", 99.0), run_result("self-ops", 98.0)).headline == "self-ops"
    assert compared(*runs, run_result("self", 40.0), run_result("hybrid:paper", 99.0)).headline == "hybrid:paper"
    assert compared(runs[0]).headline == "uniform"
    assert compared().headline is None


def test_prompts_and_settings_leave_an_arm_what_it_is():
    assert kind_of("hybrid:my-prompts") == "brain"
    assert kind_of("self+temperature=0.3") == "brain"
    assert kind_of("hybrid+brain=uniform") == "search"
    assert kind_of("hybrid+brain=self+sensitivities=0") == "brain"
    assert kind_of("hybrid+plan=rule") == kind_of("hybrid+brain-share=0+plan=hypotheses") == "search"
    assert kind_of("hybrid+brain-share=0+plan=brain") == kind_of("hybrid+plan=rule+autonomy=free") == "brain"
    assert kind_of("hybrid+brain-share=0.0") == "search"
    assert kind_of("hybrid+brain_share=.0") == kind_of("hybrid", {"brain": "uniform"}) == "search"
    assert kind_of("hybrid", {"plan": "rule"}) == kind_of("hybrid", {"brain_share": 0.0}) == "search"
    assert kind_of("hybrid+plan=brain", {"plan": "rule"}) == kind_of("self", {"plan": "rule"}) == "brain"
    assert kind_of("hybrid+brain-share=0.05") == kind_of("hybrid+brain-share=1.0") == "brain"
    assert kind_of("evolution+population=8") == "search"
    assert kind_of("owl+compensation=none") == "closed form"
    assert kind_of("something new") == "search"


# --- over seeds


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
    assert math.exp(one.value) == pytest.approx(math.sqrt(0.4 * 0.8))
    assert other.value == pytest.approx(-one.value)


def test_two_closed_forms_are_not_tested_over_seeds():
    found = compared(run_result("owl", 50.0), run_result("flap", 40.0), run_result("flap", 60.0, sparsity=0.5))
    test = over_seeds(found, "owl", "flap", PERPLEXITY)
    assert (test.p, test.n, test.low, test.verdict) == (None, 1, None, "too few pairs")
    assert math.exp(test.value) == pytest.approx(1.25)


def test_ratios_of_perplexity_and_differences_of_kl():
    found = compared(*seeds("hybrid", [30.0] * 3), *seeds("evolution", [33.0] * 3))
    assert math.exp(over_seeds(found, "hybrid", "evolution", PERPLEXITY).value) == pytest.approx(30 / 33)
    assert over_seeds(found, "hybrid", "evolution", KL).value == pytest.approx(math.log(30 / 33))
    assert over_seeds(found, "hybrid", "evolution", RECALIBRATED) is None


def test_sparsities_count_the_same_where_runs_are_missing():
    found = compared(
        *seeds("hybrid", [30.0, 30.0, 30.0], sparsity=0.2),
        *seeds("evolution", [60.0, 60.0, 60.0], sparsity=0.2),
        *seeds("hybrid", [30.0], sparsity=0.5),
        *seeds("evolution", [240.0], sparsity=0.5),
    )
    test = over_seeds(found, "hybrid", "evolution", PERPLEXITY)
    assert math.exp(test.value) == pytest.approx(0.25)  # the geometric mean of a half and an eighth
    assert (test.n, test.least_p) == (4, 0.125)


def test_arms_without_a_common_run_are_not_compared():
    found = compared(run_result("hybrid", 30.0, seed=0), run_result("evolution", 30.0, seed=1))
    assert over_seeds(found, "hybrid", "evolution", PERPLEXITY) is None


def test_the_pairs_that_were_measured_are_not_tested_without_the_one_that_was_not():
    runs = [*seeds("hybrid", [30.0] * 7), *seeds("evolution", [33.0, 34.0, 35.0, 36.0, 37.0, 38.0, 39.0])]
    assert over_seeds(compared(*runs), "hybrid", "evolution", PERPLEXITY).verdict == "below"
    for broken in (
        {"texts": []},
        {"texts": [one.model_copy(update={"perplexity": math.inf}) for one in runs[0].texts]},
    ):
        found = compared(runs[0].model_copy(update=broken), *runs[1:])
        assert over_seeds(found, "hybrid", "evolution", PERPLEXITY) is None
        assert over_seeds(found, "evolution", "hybrid", PERPLEXITY) is None
        (pairs,) = differences(found, "hybrid", "evolution", PERPLEXITY).values()
        assert pairs == [None, *(pytest.approx(math.log(30 / (34 + seed))) for seed in range(6))]
        assert unmeasured({0.3: pairs}) == "1 of 7 pairs of runs was not measured" and not unmeasured({0.3: pairs[1:]})


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


def test_without_curves_nothing_is_reached():
    assert reach([], [[(10, 1.0)]]) is None and reach([[(10, 1.0)]], []) is None


def test_a_closed_form_has_no_curve_whatever_was_recorded():
    found = compared(run_result("uniform", 30.0, curve=curve([1.0])), run_result("hybrid", 30.0, curve=curve([1.0])))
    assert staircases(found, "uniform", 0.3) == [] and len(staircases(found, "hybrid", 0.3)) == 1


@pytest.mark.parametrize(("found", "last"), [(0.4, 0.4), (0.9, 0.7), (None, 0.7)])
def test_a_curve_ends_no_worse_than_what_was_found(found, last):
    run = run_result("hybrid", 30.0, curve=curve([1.0, 0.7])).model_copy(update={"fitness": found})
    ((_, (cost, fitness)),) = staircases(compared(run), "hybrid", 0.3)
    assert (cost, fitness) == (run.curve[-1].cost, last)


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
