"""Who made what, and what the brain is worth beside chance."""

import pytest

from self_pruner.agent.compare.figures import Figures
from self_pruner.agent.compare.makers import worth, yields
from tests.agent.compare.invented import maker, results, run_result


def run(*rows, arm="hybrid", seed=0):
    return run_result(arm, 30.0, seed=seed, yields=list(rows))


def test_yields_add_up_over_runs_and_generations_in_the_order_of_makers():
    first = run(maker("switch", 10, 4), maker("brain", 6, 1, generation=1), maker("brain", 4, 2, generation=2))
    second = run(maker("brain", 5, 1), maker("brain", 0, 0, "initialise", made=7, survived=3), seed=1)
    found = yields(Figures(results([first, second])))
    assert [(one.maker, one.operator, one.made, one.compared, one.hits) for one in found] == [
        ("brain", "initialise", 7, 0, 0),
        ("brain", "mutation", 15, 15, 4),
        ("switch", "mutation", 10, 10, 4),
    ]
    assert found[0].improved is None and found[0].survived == 3
    assert found[1].improved.value == pytest.approx(4 / 15)
    assert found[1].improved.low < 4 / 15 < found[1].improved.high


def test_makers_that_no_arm_names_come_last():
    found = yields(Figures(results([run(maker("memory", 1, 0), maker("chance", 1, 0), maker("brain", 1, 0))])))
    assert [one.maker for one in found] == ["brain", "chance", "memory"]


def test_the_brain_is_compared_with_chance_only_where_both_were_measured():
    found = worth([run(maker("brain", 20, 10), maker("chance", 10, 2)), run(maker("brain", 50, 0), arm="self")])
    assert found.shares == (0.5, 0.2)
    assert (found.brain.n, found.brain.other_n, found.strata) == (20, 10, 1)
    assert found.pooled.value == pytest.approx(0.3)


def test_operators_of_one_maker_count_together():
    found = worth([run(maker("brain", 10, 5), maker("brain", 10, 1, "crossover"), maker("chance", 10, 2))])
    assert found.shares == (0.3, 0.2)


def test_generations_are_compared_within_themselves():
    # the brain made more when it was easy; in either generation it is as good as chance
    easy = maker("brain", 30, 15, generation=1), maker("chance", 10, 5, generation=1)
    hard = maker("brain", 10, 1, generation=2), maker("chance", 30, 3, generation=2)
    found = worth([run(*easy, *hard)])
    assert found.pooled.value == pytest.approx(0.2)
    assert found.within.value == pytest.approx(0.0)
    assert (found.strata, found.verdict) == (2, "not distinguished")


def test_verdicts_on_the_brain():
    assert worth([run(maker("brain", 40, 30), maker("chance", 40, 5))]).verdict == "better"
    assert worth([run(maker("brain", 40, 5), maker("chance", 40, 30))]).verdict == "worse"
    assert worth([run(maker("brain", 40, 20), maker("chance", 40, 19))]).verdict == "not distinguished"
    assert worth([run(maker("brain", 2, 2), maker("chance", 2, 0))]).verdict == "too few"


def test_without_both_nothing_is_known():
    assert worth([]) is None
    assert worth([run(maker("brain", 10, 5))]) is None
    assert worth([run(maker("brain", 10, 5), maker("chance", 0, 0))]) is None
    assert worth([run(maker("brain", 5, 1, generation=1), maker("chance", 5, 1, generation=2))]) is None
