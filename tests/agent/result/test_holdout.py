"""Which candidate a run ends with: the best on text that the search never saw, where that text can tell."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from self_pruner.agent.result.holdout import best_on_holdout, choose_on_holdout
from self_pruner.agent.search.initial_population import closed_form_of
from self_pruner.memory.records import FITNESS, Score
from self_pruner.tools.profiles.operators import mutate
from tests.bench import LENGTH, founded_bench, tiny_settings


@pytest.mark.parametrize(
    ("holdout", "best"),
    [
        ({"c1": 0.3, "c2": 0.1, "c3": 0.2}, "c2"),
        ({"c9": 0.1, "c1": 0.2}, "c9"),
        ({"c2": 0.1, "c1": 0.1}, "c1"),
        ({"c1": float("inf"), "c2": 3.0}, "c2"),
        ({}, None),
    ],
)
def test_the_least_divergence_on_unseen_text_wins(holdout, best):
    assert best_on_holdout(holdout) == best


def chosen(tmp_path, form, found, best=1):
    """What a run ends with whose search found one candidate, where it and the best of `ends` have these KL.

    Args:
        tmp_path: where its memory is.
        form: KL of the closed form on each sequence of the holdout.
        found: the same of the candidate, which is the better one on the text searched.
        best: how many of the best by search are compared.
    """
    settings = tiny_settings(final_tokens=len(found) * LENGTH, final_candidates=best)
    bench, starting = founded_bench(tmp_path, settings)
    rows = [bench.candidate(name) for name in starting]
    ends = next(row for row in rows if closed_form_of(row) == "ends")
    moved = mutate(bench.budget, ends.profile, random.Random(0), 2, 1)
    searched = replace(ends, id="found", profile=moved, proposed_by="model", detail="", generation=1, step=1)
    known = {row.profile: (1.0, [9.0] * len(found)) for row in rows}
    known |= {ends.profile: (0.02, form), moved: (0.01, found)}
    bench.memory.record(searched)
    for profile, (fitness, holdout) in known.items():
        kl = [*[fitness] * bench.holdout.start, *holdout]
        bench.memory.record(*(Score(profile, FITNESS, index, kl[index], 2.0, "run", 1) for index in range(len(kl))))
    name, compared = choose_on_holdout(bench, settings)
    assert compared[ends.id] == pytest.approx(sum(form) / len(form))
    assert compared["found"] == pytest.approx(sum(found) / len(found))
    return "form" if name == ends.id else name


@pytest.mark.parametrize(
    ("form", "found", "ends_with"),
    [
        ([0.3, 0.4, 0.5], [0.2, 0.3, 0.4], "found"),
        ([0.2, 0.3, 0.4], [0.3, 0.4, 0.51], "form"),  # worse on every sequence
        ([0.2, 0.5, 0.4], [0.3, 0.4, 0.41], "found"),  # worse by less than a tenth of a standard error
        ([0.2, 0.3, 0.4], [0.3, 0.3, 0.51], "form"),  # by two of them
        ([0.2], [0.3], "found"),  # a single sequence does not say how sequences differ
    ],
)
def test_a_closed_form_takes_the_place_of_what_was_found_where_the_holdout_can_tell(tmp_path, form, found, ends_with):
    assert chosen(tmp_path, form, found) == ends_with


def test_among_the_best_few_of_a_search_the_least_is_taken(tmp_path):
    assert chosen(tmp_path, [0.2, 0.5, 0.4], [0.3, 0.4, 0.41], best=2) == "form"
