"""What the report says is computed from the figures, also when the brain or the search loses."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from self_pruner.agent.result.brain_totals import choices, yields
from self_pruner.agent.result.outcome import Difference, Outcome, Row, Yield, brain_sentence, reporting_scores, summary
from self_pruner.agent.run_files.trace import Act
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Score


def outcome(found, uniform, mean, error, proposed_by="switch"):
    rows = [
        Row(name="uniform", params=1, kl=uniform, perplexity=30.0),
        Row(name="found", params=1, kl=found, perplexity=25.0),
    ]
    return Outcome(
        candidate="c1",
        attention=[1],
        mlp=[1],
        dense={"attention": 1, "mlp": 1},
        sparsity=0.3,
        stop="",
        rows=rows,
        differences=[Difference(against="uniform", mean=mean, standard_error=error, sequences=8)],
        holdout={},
        measured_on="",
        latency_setting=None,
        spent={},
        yields=[Yield(proposed_by=proposed_by, made=1, compared=0, improved=0)],
        warnings=[],
    )


def test_a_table_has_only_the_sequences_that_the_run_reports_on_whatever_others_measured():
    profile, scores = Profile((1,), (1,)), {}
    for index in range(4):
        scores[index] = Score(profile, "text", index, kl=float(index), nll=2.0 * index, run="r", step=1)
    walks = {"text": SimpleNamespace(targets=SimpleNamespace(n_sequences=2))}
    bench: Any = SimpleNamespace(walks=walks, scores=lambda *of: scores)
    assert reporting_scores(bench, profile, "text") == ([0.0, 1.0], [0.0, 2.0])


def test_a_result_of_before_is_read_whose_holdout_has_another_name():
    written = outcome(0.8, 1.0, -0.2, 0.01).model_copy(update={"holdout": {"c1": 0.8}})
    text = written.model_dump_json().replace('"holdout"', '"unseen"')
    assert '"unseen"' in text and Outcome.model_validate_json(text) == written


def test_the_summary_says_so_when_the_search_wins_loses_or_ties():
    assert "20.0% below the best baseline, uniform" in summary(outcome(0.8, 1.0, -0.2, 0.01))
    assert "more than two standard errors" in summary(outcome(0.8, 1.0, -0.2, 0.01))
    assert "less than two standard errors" in summary(outcome(0.8, 1.0, -0.2, 0.15))
    assert "10.0% above the best baseline, uniform" in summary(outcome(1.1, 1.0, 0.1, 0.01))
    assert summary(outcome(1.0, 1.0, 0.0, 0.0)) == "The search found nothing better than the best baseline (uniform)."


def test_the_summary_speaks_of_no_search_and_no_error_where_there_is_none():
    equal = summary(outcome(1.0, 1.0, 0.0, 0.0, "seed"))
    assert equal == "Nothing was searched: the result equals the best baseline (uniform)."
    single = summary(outcome(0.8, 1.0, -0.2, None))
    assert single.endswith("the paired difference is of a single sequence, which says nothing of chance.")


def test_a_result_is_said_beside_the_best_of_all_baselines():
    one = outcome(0.8, 1.0, -0.2, 0.01)
    rows = [*one.rows, Row(name="ends", params=1, kl=0.7, perplexity=24.0), Row(name="closed form", params=1)]
    difference = Difference(against="ends", mean=0.1, standard_error=0.01, sequences=8)
    several = one.model_copy(update={"rows": rows, "differences": [*one.differences, difference]})
    assert several.best_baseline == "ends"
    assert "14.3% above the best baseline, ends (0.8000 and 0.7000 nats a token)" in summary(several)
    unmeasured = one.model_copy(update={"rows": [Row(name="uniform", params=1), one.row("found")]})
    assert summary(unmeasured) == "The found profile or the baselines could not be measured on the reporting text."


def brain(improved, compared, lucky, drawn, choices=()):
    return brain_sentence(
        [
            Yield(proposed_by="brain", made=compared, compared=compared, improved=improved),
            Yield(proposed_by="chance", made=drawn, compared=drawn, improved=lucky),
        ],
        choices,
    )


def test_a_brain_no_better_than_chance_is_called_that():
    assert "does not show the brain to be better or worse than chance" in brain(5, 20, 2, 8)
    assert "the brain was better than chance" in brain(18, 20, 1, 10)
    assert "the brain was worse than chance" in brain(1, 20, 9, 10)


def test_nothing_is_said_of_a_brain_that_varied_nothing():
    assert "nothing can be said" in brain(0, 0, 1, 5)


@pytest.mark.parametrize(
    ("own", "chance", "p"), [((3, 4), (1, 4), "0.49"), ((4, 4), (0, 4), "0.029"), ((2, 4), (2, 4), "1")]
)
def test_the_p_value_is_fishers_as_worked_by_hand(own, chance, p):
    # the lady tasting tea: 3 of 4 and 1 of 4 right, two-sided 34/70; all right, 2/70
    assert f"(exact test, p = {p})" in brain(*own, *chance)
    assert f"(exact test within generations, p = {p})" in brain(*own, *chance, [(*own, *chance)])


def test_a_brain_that_was_asked_while_it_was_easy_is_not_better_for_that():
    easy, hard = (8, 8, 2, 2), (0, 2, 0, 8)  # everything improved at first, nothing later
    assert brain(8, 10, 2, 10).endswith("(exact test, p = 0.023): the brain was better than chance.")
    within = brain(8, 10, 2, 10, [easy, hard])
    assert "(exact test within generations, p = 1): this run does not show" in within


def test_the_counts_are_of_the_generations_that_the_test_is_of():
    alone, both, drawn = (9, 10, 0, 0), (1, 4, 3, 4), (0, 0, 2, 10)
    assert brain(10, 14, 5, 14, [alone, both, drawn]) == (
        "1 of the brain's 4 variations in generations with random ones beat their parents, and 3 of 4 random ones "
        "(exact test within generations, p = 0.49): this run does not show the brain to be better or worse than chance."
    )
    assert brain(9, 10, 2, 10, [alone, drawn]) == (
        "9 of the brain's 10 variations beat their parents, and 2 of 10 random ones, but no generation has both, so "
        "they are not compared."
    )
    assert brain(9, 10, 0, 0, [alone]).endswith(
        "10 variations beat their parents; no random ones were drawn to compare with."
    )


def test_one_variation_is_said_as_one():
    assert brain(1, 1, 0, 0).startswith("1 of the brain's 1 variation beat")


def test_a_child_improves_only_if_it_beats_the_better_of_its_parents():
    def row(name, by):
        return Candidate("r", name, Profile((1,), (1,)), ("c1", "c2"), "crossover", by, 1, 1, 0, 0, 1, "")

    def result(name, *changes):
        change = [{"parent": f"c{i}", "mean": mean, "standard_error": None} for i, mean in enumerate(changes)]
        return {"id": name, "status": "ok", "fitness": 1.0, "change": change}

    act = Act(
        step=1,
        call=0,
        tool="evaluate",
        arguments={},
        result={"fidelity": 32, "results": [result("c3", -0.2, -0.1), result("c4", -0.2, 0.1), result("c5", -0.1)]},
    )
    candidates = [row("c3", "brain"), row("c4", "brain"), row("c5", "chance"), row("c6", "chance")]
    found = {one.proposed_by: (one.made, one.compared, one.improved) for one in yields([act], candidates, 32)}
    assert found == {"brain": (2, 2, 1), "chance": (2, 1, 1)}
    later = [replace(row, generation=2) for row in candidates[1:]]
    assert choices([act], candidates, 32) == [(1, 2, 1, 1)]
    assert choices([act], [candidates[0], *later], 32) == [(1, 1, 0, 0), (0, 1, 1, 1)]
