"""The brain's choices beside random ones: only where both were measured, within runs and generations."""

import pytest

from self_pruner.agent.compare.worth import brain_worth
from self_pruner.agent.result.outcome import brain_sentence
from self_pruner.tools.profiles.statistics import TwoShares
from tests.agent.compare.invented import proposer, run_result


def run(*rows, arm="hybrid", seed=0):
    return run_result(arm, 30.0, seed=seed, yields=list(rows))


def test_the_brain_is_compared_with_chance_only_where_both_were_measured():
    found = brain_worth(
        [run(proposer("brain", 20, 10), proposer("chance", 10, 2)), run(proposer("brain", 50, 0), arm="self")]
    )
    assert (found.total, found.strata) == (TwoShares(10, 20, 2, 10), 1)
    assert found.pooled.value == pytest.approx(0.3)


def test_what_stood_in_for_a_failing_brain_is_chance_as_in_the_report_of_a_run():
    rows = [proposer("brain", 12, 5), proposer("fallback", 10, 2), proposer("rule", 9, 9), proposer("switch", 8, 8)]
    assert brain_worth([run(*rows)]).total == TwoShares(5, 12, 2, 10)
    assert brain_worth([run(*rows, proposer("chance", 3, 1))]).total == TwoShares(5, 12, 3, 13)
    assert "5 of the brain's 12 variations beat their parents, and 2 of 10 random ones" in brain_sentence(rows)


def test_operators_of_one_proposer_count_together():
    found = brain_worth(
        [run(proposer("brain", 10, 5), proposer("brain", 10, 1, "crossover"), proposer("chance", 10, 2))]
    )
    assert found.total == TwoShares(6, 20, 2, 10)


def test_generations_are_compared_within_themselves():
    # the brain made more when it was easy; in either generation it is as good as chance
    easy = proposer("brain", 30, 15, generation=1), proposer("chance", 10, 5, generation=1)
    hard = proposer("brain", 10, 1, generation=2), proposer("chance", 30, 3, generation=2)
    found = brain_worth([run(*easy, *hard)])
    assert found.pooled.value == pytest.approx(0.2)
    assert found.within == pytest.approx(0.0)
    assert (found.strata, found.verdict) == (2, "not distinguished")


def test_without_both_nothing_is_known():
    assert brain_worth([]) is None
    assert brain_worth([run(proposer("brain", 10, 5))]) is None
    assert brain_worth([run(proposer("brain", 10, 5), proposer("chance", 0, 0))]) is None
    assert brain_worth([run(proposer("brain", 5, 1, generation=1), proposer("chance", 5, 1, generation=2))]) is None
