"""What a run will do, in integers."""

from dataclasses import replace

import pytest

from self_pruner.agent.dry_run.plan import plan_of
from self_pruner.agent.search.initial_population import most_profiles
from self_pruner.agent.settings.arms import ARM_NAMES, ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.prompts.templates import PromptSet
from tests.agent.dry_run.smollm2 import SIZES

BUDGET = SIZES.budget


def planned(arm, remembered=0, prompt_set="default", **settings):
    return plan_of(Settings(**settings), ARMS[arm], PromptSet(prompt_set), BUDGET, remembered)


def test_a_default_search_of_the_hybrid_arm():
    found = planned("hybrid", initial=6)
    assert found.initial == {"model": 6}
    assert found.generations == 7  # eleven profiles of closed forms and six initial ones, and six times eight offspring
    # one of them is known on the first fidelity; the better half and the best of three closed forms reach the second
    assert found.measured == (16 + 6 * 8, 12 + 6 * 4)
    assert found.evaluations == 64
    assert found.probes == 60 and found.tokens_before(Settings()) == 60 * 512 + 1024
    # a plan for each generation but the first; uniform and the found profile are timed
    assert (found.turns, found.replies, found.vectors, found.timings) == (6, 6, 0, 2)
    assert planned("hybrid", initial=6, plan="brain").timings == 3  # its plan may time a candidate
    # a free brain makes each of them by a call of its own, and measures them twice and records them in three
    assert planned("hybrid", initial=6, autonomy="free").turns == 6 * (8 + 2 + 1)
    assert planned("hybrid", plan="rule").turns == planned("hybrid", brain_share=0).turns == 0


def test_limits_below_what_a_search_starts_with_are_named_with_what_that_takes():
    # 60 probes, eleven profiles of closed forms on the first fidelity, one of which is known, the best of three in full
    least = 60 * 512 + 11 * 1024 + 3 * 3072
    for limits, said in (
        ({"tokens": least - 1}, f"are: up to {least:,} tokens (--tokens {least - 1})"),
        ({"tokens": least}, ""),
        ({"evaluations": 9}, "are: up to 10 evaluations (--evaluations 9)"),
        ({"evaluations": 10}, ""),
        ({"tokens": 1, "evaluations": 1}, f"{least:,} tokens (--tokens 1) and up to 10 evaluations (--evaluations 1)"),
    ):
        warning = planned("hybrid", **limits).overspent(Settings(**limits))
        assert warning.endswith(said) and bool(warning) == bool(said)
    assert not planned("hybrid").overspent(Settings())


@pytest.mark.parametrize("name", ARM_NAMES)
@pytest.mark.parametrize("evaluations", [1, 2, 3, 8, 64])
def test_no_arm_evaluates_more_than_it_may_beyond_its_closed_forms(name, evaluations):
    arm = ARMS[name]
    found = planned(name, evaluations=evaluations)
    assert found.evaluations <= max(evaluations, sum(most_profiles(BUDGET, name) for name in arm.closed_forms))
    assert sum(found.initial.values()) <= evaluations
    assert bool(found.turns) <= arm.asks_brain


def test_a_closed_form_is_one_candidate_at_every_stage():
    found = planned("owl", fidelity=(512, 1024, 2048), probe_tokens=512)
    assert found.measured == (1, 1, 1) and not found.initial and not found.turns
    assert found.tokens_before(Settings()) == 0


def test_more_stages_halve_the_candidates_each_time():
    settings = {"fidelity": (512, 1024, 2048), "probe_tokens": 512}
    one, two = (planned("evolution", evaluations=count, **settings) for count in (16, 24))
    assert [after - before for before, after in zip(one.measured, two.measured, strict=True)] == [8, 4, 2]


def test_profiles_of_earlier_runs_are_measured_too():
    without, having = (planned("evolution", count, evaluations=18) for count in (0, 2))
    assert having.evaluations == without.evaluations == 18
    assert sum(having.initial.values()) == sum(without.initial.values())
    assert planned("owl", 2).evaluations == 1  # a closed form searches nothing


def test_the_brain_makes_its_share_in_as_few_turns_as_its_samples_allow():
    many, few = planned("self", samples=8), planned("self", samples=2)
    assert many.together == 8 and few.together == 2
    assert few.turns > many.turns
    assert planned("evolution").turns == 0


def test_a_prompt_set_without_edits_has_vectors_in_every_reply_that_makes_a_candidate():
    edits, vectors = planned("self"), planned("self", prompt_set="paper")
    assert edits.vectors == edits.initial["brain"]
    assert vectors.vectors == vectors.replies - vectors.generations - 1  # all but those that close or time


@pytest.mark.parametrize(("evaluations", "times"), [(1, 0), (13, 1), (37, 1), (45, 2), (69, 3)])
def test_sensitivities_are_measured_anew_every_few_generations(evaluations, times):
    assert planned("hybrid", sensitivities=3, evaluations=evaluations).sensitivities == times
    every = planned("hybrid", sensitivities=1, evaluations=evaluations)
    assert every.sensitivities == every.generations - 1
    assert planned("hybrid", sensitivities=0).sensitivities == planned("evolution").sensitivities == 0


def test_without_benchmarks_nothing_is_timed():
    timed, not_timed = planned("self"), planned("self", benchmarks=0)
    assert (timed.timings, not_timed.timings) == (3, 0)
    assert timed.turns == not_timed.turns + 1
    assert replace(timed, timings=0, turns=0, replies=0) == replace(not_timed, turns=0, replies=0)
