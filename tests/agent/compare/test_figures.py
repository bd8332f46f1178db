"""Arms put in order: figures over seeds, texts and sparsities, ranks, kinds."""

import math

import pytest

from self_pruner.agent.compare.figures import KL, PERPLEXITY, RECALIBRATED, ComparedArms, chosen, kind_of
from tests.agent.compare.invented import results, run_result


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
    assert kind_of("hybrid+brain=self+slopes=0") == "brain"
    assert kind_of("evolution+population=8") == "search"
    assert kind_of("owl+compensation=none") == "closed form"
    assert kind_of("something new") == "search"


def test_the_run_that_is_kept_is_chosen_without_the_reported_figures():
    good = run_result("hybrid", 20.5, seed=0, holdout=0.5)
    lucky = run_result("hybrid", 22.0, seed=1, holdout=0.4)
    unknown = run_result("hybrid", 20.1, seed=2, holdout=None)
    assert chosen([good, lucky, unknown]).seed == 1
    assert chosen([unknown]).seed == 2
    assert chosen([]) is None
