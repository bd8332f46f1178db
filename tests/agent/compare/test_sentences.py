"""The summary follows from the figures, also when the brain loses, or when nothing can be told."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.agent.compare.sentences import change_in_words, sentences
from tests.agent.compare.invented import curve, proposer, results, run_result, steady

SPREAD = (0.99, 1.0, 1.01)  # of three seeds
SPARSITIES = (0.2, 0.3, 0.5)


def arm(name, perplexity, *, sparsities=SPARSITIES, spread=SPREAD, **values):
    """Runs of an arm at every sparsity; of a closed form, give a spread of (1.0,)."""
    return [
        run_result(name, perplexity * factor * (1 + sparsity), sparsity=sparsity, seed=seed, **values)
        for sparsity in sparsities
        for seed, factor in enumerate(spread)
    ]


def closed(name, perplexity, **values):
    return arm(name, perplexity, spread=(1.0,), **values)


def said(*runs, about="", **values):
    found = [sentence for sentence in sentences(results(runs, **values)) if about in sentence]
    assert len(found) == 1, found
    return found[0]


def test_the_best_arm_is_named_with_its_figure_and_who_follows():
    found = said(*arm("hybrid", 30.0), *arm("evolution", 40.0), *closed("owl", 50.0), about="Of ")
    mean = 30 * (1.2 * 1.3 * 1.5 * (0.99 * 1.01)) ** (1 / 3)
    assert found.startswith("Of 3 arms hybrid has the lowest perplexity, ")
    assert f"{mean:.1f}" in found
    assert "over 3 seeds), geometric mean over 3 texts at 20%, 30% and 50% sparsity; evolution follows with 5" in found
    assert found.endswith("the paired test tells the two apart.")


def test_seeds_that_are_fewer_at_one_sparsity_are_called_so():
    runs = [run_result("hybrid", 30.0 + seed, seed=seed, sparsity=0.2) for seed in range(5)]
    runs += [run_result("hybrid", 40.0 + seed, seed=seed, sparsity=0.5) for seed in range(2)]
    assert "over 2 to 5 seeds), " in sentences(results(runs))[0]
    assert "over 2 seeds), " in sentences(results([run for run in runs if run.seed < 2]))[0]


def test_the_lowest_mean_may_lose_where_both_were_measured_and_it_is_said():
    pairs = [run_result("hybrid", 30.0 + seed / 10, seed=seed) for seed in range(6)]
    better = [run_result("evolution", 29.0 + seed / 10, seed=seed) for seed in range(6)]
    bad = [run_result("evolution", 60.0, seed=seed) for seed in (9, 10)]
    found = said(*pairs, *better, *bad, about="Of ")
    assert found.startswith("Of 2 arms hybrid has the lowest perplexity")
    assert found.endswith("but over the 6 pairs of runs that both have evolution is better.")


def test_a_baseline_that_the_test_does_not_tell_from_the_best_is_called_that():
    found = said(*arm("evolution", 30.0), *arm("hybrid", 30.001, spread=SPREAD[::-1]), about="Of ")
    assert found.endswith("hybrid follows with 39.83, which the paired test does not tell from it.")
    found = said(*arm("evolution", 30.0, spread=(1.0,)), *arm("hybrid", 40.0, spread=(1.0,)), about="Of ")
    assert found.endswith("there are too few pairs of runs to tell the two apart.")


def test_hybrid_wins():
    found = said(*arm("hybrid", 30.0), *arm("evolution", 40.0), about="plain evolution")
    assert found.startswith("hybrid beats plain evolution: its perplexity is 25.0% lower (95% interval -25")
    assert found.endswith("9 pairs of runs), p = 0.0039.")


def test_hybrid_loses_to_evolution_and_to_a_closed_form_and_it_is_said():
    runs = [*arm("hybrid", 50.0), *arm("evolution", 40.0), *closed("flap", 45.0), *closed("uniform", 99.0)]
    assert said(*runs, about="Of ").startswith("Of 4 arms evolution has the lowest perplexity")
    assert said(*runs, about="plain evolution").startswith(
        "hybrid loses to plain evolution: its perplexity is 25.0% higher"
    )
    assert said(*runs, about="closed form").startswith(
        "hybrid loses to the best closed form (flap): its perplexity is 11.1% higher"
    )


def test_what_the_test_cannot_tell_apart_is_called_that():
    found = said(*arm("hybrid", 40.0), *arm("evolution", 40.01, spread=SPREAD[::-1]), about="plain evolution")
    assert found.startswith("hybrid is not told apart from plain evolution: its perplexity is 0.02% lower")


def test_too_few_seeds_are_called_that_with_the_least_p_they_allow():
    found = said(*arm("hybrid", 30.0, spread=(1.0,)), *arm("evolution", 60.0, spread=(1.0,)), about="plain evolution")
    assert found == (
        "Too few seeds to tell hybrid from plain evolution: its perplexity is 50.0% lower (3 pairs of runs), and so "
        "few allow no p below 0.25."
    )


def test_few_pairs_have_students_interval_and_it_says_so():
    found = said(
        *arm("hybrid", 30.0, sparsities=[0.3]), *arm("evolution", 60.0, sparsities=[0.3]), about="plain evolution"
    )
    assert "Student's 95% interval" in found and "no p below 0.25" in found


def test_missing_baselines_are_named():
    found = sentences(results(arm("hybrid", 30.0)))
    assert "There is no closed form to compare with." in found
    assert "There is no plain evolution to compare with." in found
    assert found[0].endswith("no other arm can be compared with it.")


def test_a_baseline_without_all_sparsities_is_compared_where_both_were_measured():
    runs = [*arm("hybrid", 30.0), *arm("evolution", 40.0, sparsities=[0.2, 0.3])]
    found = said(*runs, about="beats plain evolution")
    assert "(95% interval" in found and "6 pairs of runs) at 20% and 30%, where both were measured" in found
    assert "evolution was not measured on every text at every sparsity and so not ranked." in sentences(results(runs))


def test_arms_without_a_finished_run_are_named():
    runs = arm("hybrid", 30.0)
    found = sentences(results(runs, arms={"hybrid": "", "owl": "", "flap": ""}, missing=["owl at 20%", "flap at 20%"]))
    assert "owl and flap were not measured on every text at every sparsity and so not ranked." in found
    assert "2 runs are missing, and the figures are of the others." in found


def test_pairs_that_do_not_meet_are_called_that():
    runs = [run_result("hybrid", 30.0, seed=0), run_result("evolution", 30.0, seed=1)]
    assert said(*runs, about="pair of runs") == "hybrid and plain evolution have no pair of runs in common."


def test_an_arm_does_not_beat_another_by_the_runs_of_it_that_did_not_fail():
    runs = [*arm("hybrid", 30.0, sparsities=[0.2, 0.5]), *arm("evolution", 40.0, sparsities=[0.2, 0.5])]
    failed = [
        run.model_copy(update={"texts": []}) if run.arm == "hybrid" and run.sparsity == 0.5 else run for run in runs
    ]
    assert said(*runs, about="plain evolution").startswith("hybrid beats plain evolution")
    assert said(*failed, about="plain evolution") == (
        "hybrid is not compared with plain evolution: 3 of 6 pairs of runs were not measured."
    )


def test_only_closed_forms_leave_nothing_to_test():
    found = sentences(results([*closed("owl", 30.0), *closed("flap", 40.0)]))
    assert found[0].endswith("flap follows with 53.10, and neither varies with the seed.")
    assert found[1:] == ["Only closed forms were compared: nothing in them is left to chance or to a brain."]


def test_without_a_brain_the_searching_arm_is_spoken_of():
    found = sentences(results([*arm("evolution", 30.0), *closed("owl", 40.0)]))
    assert "No arm that asks the brain was measured, so nothing is said of its worth." in found
    assert any(sentence.startswith("evolution beats the best closed form (owl)") for sentence in found)
    assert not any("chance" in sentence for sentence in found)


def test_an_arm_that_asks_the_brain_is_spoken_of_before_a_better_one_that_does_not():
    runs = [*arm("hybrid:terse", 31.0), *arm("hybrid+plan=rule", 30.0), *closed("ends", 40.0)]
    found = " ".join(sentences(results(runs)))
    assert "No arm that asks the brain was measured" not in found
    assert "hybrid:terse" in found


def test_another_arm_that_asks_the_brain_stands_in_for_hybrid():
    found = said(*arm("self", 30.0), *arm("evolution", 40.0), about="plain evolution")
    assert found.startswith("self beats plain evolution")


def test_hybrid_is_compared_with_the_target_model_alone():
    found = said(*arm("hybrid", 30.0), *arm("self:default", 40.0), about="alone")
    assert found.startswith("hybrid beats the target model alone (self:default)")


def test_nothing_is_said_of_no_runs():
    assert sentences(results([]))[0] == "No run is finished yet."
    assert sentences(results([], missing=["hybrid at 20%"])) == [
        "No run is finished yet.",
        "1 run is missing, and the figures are of the others.",
    ]


def test_arms_of_which_none_was_measured_everywhere_have_no_best():
    runs = [*arm("hybrid", 30.0, sparsities=[0.2]), *arm("evolution", 40.0, sparsities=[0.2, 0.5]), *closed("owl", 1.0)]
    assert sentences(results(runs))[0].startswith("owl has a perplexity")
    found = sentences(results(runs[:-3] + closed("owl", 30.0, sparsities=[0.3])))
    assert found[0] == "No arm was measured on every text at every sparsity, so none can be called the best."


@pytest.mark.parametrize(
    ("brain", "chance", "ending"),
    [
        ((40, 30), (40, 5), "the brain chose better than chance."),
        ((40, 5), (40, 30), "the brain chose worse than chance."),
        ((40, 20), (40, 19), "the brain is not shown to choose better or worse than chance."),
        ((2, 2), (2, 0), "too few to tell."),
    ],
)
def test_the_worth_of_the_brain(brain, chance, ending):
    runs = arm("hybrid", 30.0, sparsities=[0.3], spread=(1.0,))
    run = runs[0].model_copy(update={"yields": [proposer("brain", *brain), proposer("chance", *chance)]})
    found = said(run, about="brain")
    assert found.startswith(f"{100 * brain[1] / brain[0]:g}% of the brain's {brain[0]} candidates beat their parents, ")
    assert f"{100 * chance[1] / chance[0]:g}% of {chance[0]} random choices among the same legal moves" in found
    assert found.endswith(ending)


def test_the_stratified_worth_is_said_where_there_are_several_runs():
    yields = [proposer("brain", 10, 5), proposer("chance", 10, 4)]
    assert "stratified" in said(*arm("hybrid", 30.0, yields=yields), about="legal moves")


def test_a_brain_never_beside_chance_has_no_known_worth():
    found = said(*arm("hybrid", 30.0, yields=[proposer("brain", 10, 5)]), about="worth")
    assert found.startswith("What the brain is worth beside chance is not known")


def test_the_share_of_tokens_for_the_same_quality():
    fast, slow = curve([1.0, 0.5, 0.3]), curve([1.0, 0.9, 0.8, 0.5])
    runs = [*arm("hybrid", 30.0, curve=fast), *arm("evolution", 40.0, curve=slow)]
    assert said(*runs, about="tokens") == (
        "Averaged over seeds, hybrid reached the final fitness of evolution after 50% of the tokens that evolution "
        "took (geometric mean over 3 sparsities)."
    )


@pytest.mark.parametrize("setting", ["fidelity=1024,4096", "fitness-text=c4", "fitness_text=c4"])
def test_fitness_on_other_tokens_is_not_reached(setting):
    runs = [*arm("hybrid", 30.0, curve=curve([1.0, 0.5])), *arm("self", 50.0, curve=curve([1.0, 0.6]))]
    other = arm(f"evolution+{setting}", 40.0, curve=curve([3.0, 2.0]))
    assert "final fitness of self after" in said(*runs, *other, about="final fitness")
    assert "final fitness of evolution" in said(
        *runs[:-9], *arm("evolution", 40.0, curve=curve([3.0, 2.0])), about="final"
    )
    alike = arm("evolution+fidelity=512,2048+offspring=6", 40.0, curve=curve([3.0, 2.0]))
    assert "final fitness of evolution" in said(*runs[:-9], *alike, about="final")


def test_a_quality_that_was_never_reached_is_called_that():
    slow = arm("hybrid", 30.0, curve=curve([1.0, 0.9]))
    assert said(*slow, *arm("evolution", 30.0, curve=curve([1.0, 0.2])), about="final fitness") == (
        "Averaged over seeds, hybrid did not reach the final fitness of evolution."
    )
    once = [run for run in (*slow, *arm("evolution", 30.0, curve=curve([1.0, 0.2]))) if run.seed == 0]
    assert said(*once, about="final fitness") == "hybrid did not reach the final fitness of evolution."
    mixed = [
        *arm("evolution", 30.0, sparsities=[0.2, 0.3], curve=curve([1.0, 0.2])),
        *arm("evolution", 30.0, sparsities=[0.5], curve=curve([1.0, 0.9])),
    ]
    assert said(*slow, *mixed, about="final fitness") == (
        "Averaged over seeds, hybrid reached the final fitness of evolution at 1 of 3 sparsities."
    )


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.937, "6.3% lower"), (1.5, "50.0% higher"), (1.0, "equal"), (0.99984, "0.02% lower")]
)
def test_changes_in_words(ratio, words):
    assert change_in_words(math.log(ratio)) == words


@steady
@given(
    st.dictionaries(
        st.sampled_from(["hybrid", "hybrid:paper", "self", "evolution", "cma", "random", "owl", "flap", "uniform"]),
        st.dictionaries(st.sampled_from(SPARSITIES), st.lists(st.floats(21, 500), min_size=1, max_size=3), min_size=1),
    )
)
def test_there_is_a_summary_of_whatever_was_finished(figures):
    runs = [
        run_result(name, value, sparsity=sparsity, seed=seed)
        for name, by_sparsity in figures.items()
        for sparsity, values in by_sparsity.items()
        for seed, value in enumerate(values)
    ]
    found = sentences(results(runs))
    assert found and all(sentence.endswith(".") and "None" not in sentence for sentence in found)
    best = min(
        (name for name in figures if len(figures[name]) == len({run.sparsity for run in runs})),
        key=lambda name: sum(sum(map(math.log, values)) / len(values) for values in figures[name].values()),
        default=None,
    )
    if best is not None and len(figures) > 1:
        assert best in found[0]
