"""Two arms side by side: over seeds, over text, in tokens, and the generalisation gap."""

import math

import pytest

from self_pruner.agent.compare.differences import gaps, mean_share, over_seeds, over_text, paired_runs, reached
from self_pruner.agent.compare.figures import KL, PERPLEXITY, RECALIBRATED, Figures
from tests.agent.compare.invented import SEQUENCES, TEXTS, curve, results, run_result


def compared(*runs, **values):
    return Figures(results(runs, **values))


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


def test_over_text_the_same_sequences_are_compared_in_the_runs_that_would_be_kept():
    found = compared(
        run_result("hybrid", 30.0, seed=0, unseen=0.6),
        run_result("hybrid", 36.0, seed=1, unseen=0.5),
        run_result("owl", [40.0, 45.0, 50.0], noise=0.0),
    )
    by_text = {one.text: one for one in over_text(found, "hybrid", "owl")}
    assert list(by_text) == [*TEXTS, ""]
    assert by_text["c4"].seeds == (1, 0)
    assert by_text["c4"].ratio.value == pytest.approx(36 / 45)
    assert by_text["c4"].ratio.low < 36 / 45 < by_text["c4"].ratio.high
    assert by_text["c4"].kl.n == SEQUENCES
    assert by_text[""].ratio.value == pytest.approx(36 / (40 * 45 * 50) ** (1 / 3))


def test_over_text_what_is_common_to_both_profiles_does_not_blur_the_difference():
    sharp = compared(run_result("hybrid", 30.0, noise=0.0), run_result("owl", 30.3, noise=0.0))
    assert over_text(sharp, "hybrid", "owl")[-1].ratio.high < 1  # one per cent, though sequences differ by a fifth


def test_texts_with_other_sequences_are_not_compared():
    short = run_result("owl", 30.0)
    texts = [short.texts[0].model_copy(update={"kl_by_sequence": [0.5]}), *short.texts[1:]]
    found = compared(run_result("hybrid", 30.0), short.model_copy(update={"texts": texts}))
    assert [one.text for one in over_text(found, "hybrid", "owl")] == ["c4", "passages"]


def test_tokens_to_reach_another_arms_end_by_sparsity():
    found = compared(
        run_result("hybrid", 30.0, sparsity=0.2, curve=curve([1.0, 0.5, 0.4, 0.3])),
        run_result("hybrid", 30.0, sparsity=0.5, curve=curve([1.0, 0.9, 0.8, 0.7])),
        run_result("evolution", 30.0, sparsity=0.2, curve=curve([1.0, 0.9, 0.8, 0.5])),
        run_result("evolution", 30.0, sparsity=0.5, curve=curve([1.0, 0.9, 0.8, 0.7])),
        run_result("uniform", 30.0, sparsity=0.5, curve=curve([1.0])),
    )
    by_sparsity = reached(found, "hybrid", "evolution")
    assert {sparsity: one.share for sparsity, one in by_sparsity.items()} == {0.2: 0.5, 0.5: 1.0}
    assert mean_share(by_sparsity) == pytest.approx(math.sqrt(0.5))
    assert mean_share(reached(found, "evolution", "hybrid")) is None  # it never was as good at 20%
    assert reached(found, "hybrid", "uniform") == {}  # a closed form has no curve, whatever was recorded


def test_the_gap_is_the_ratio_of_kl_on_other_text_to_fitness():
    found = compared(
        run_result("evolution", [40.0, 50.0, 60.0], seed=0, fitness=0.5, unseen=0.6),
        run_result("evolution", [40.0, 50.0, 60.0], seed=1, fitness=0.4, unseen=0.6),
        run_result("owl", 40.0, fitness=None),
    )
    (gap,) = gaps(found)
    assert gap.arm == "evolution" and gap.fitness.value == pytest.approx(0.45)
    assert gap.unseen.value == pytest.approx(math.sqrt(0.6 / 0.5 * 0.6 / 0.4))
    assert gap.texts["passages"].value == pytest.approx(math.log(3) / math.sqrt(0.5 * 0.4))


def test_a_gap_without_unseen_tokens_is_not_known():
    (gap,) = gaps(compared(run_result("owl", 40.0, unseen=None)))
    assert gap.unseen is None
