"""What a run will do, in integers."""

import pytest

from self_pruner.agent.arms import ARM_NAMES, ARMS
from self_pruner.agent.dry_run.schedule import making_turns, rounds, slope_measurements
from self_pruner.agent.search.turn_facts import ATTEMPTS
from self_pruner.agent.settings import Settings


def test_a_default_search_of_the_hybrid_arm_candidate_by_candidate():
    found = rounds(Settings(initial=6), ARMS["hybrid"])
    assert [one.made for one in found] == [6, *[8] * 7, 1]
    # two founders, one of which is known on the first fidelity, and both of which reach the second
    assert [one.measured for one in found] == [(7, 6), *[(8, 4)] * 7, (1, 1)]
    assert sum(one.measured[0] for one in found) == 64
    makers = len(ARMS["hybrid"].vary)
    assert [one.by_brain for one in found][1:] == [8 - makers + 1] * 7 + [1]


@pytest.mark.parametrize("name", ARM_NAMES)
@pytest.mark.parametrize("evaluations", [1, 2, 3, 8, 64])
def test_no_arm_evaluates_more_than_it_may_beyond_its_founders(name, evaluations):
    arm = ARMS[name]
    found = rounds(Settings(evaluations=evaluations), arm)
    evaluated = sum(one.measured[0] for one in found)
    assert evaluated <= max(evaluations, len(arm.founders))
    assert all(0 <= one.share <= one.by_brain <= one.made for one in found)
    assert any(one.by_brain for one in found) <= ("brain" in (*arm.initial, *arm.vary))


def test_a_closed_form_is_one_candidate_at_every_stage():
    (only,) = rounds(Settings(fidelity=(512, 1024, 2048), probe_tokens=512), ARMS["owl"])
    assert only.made == 0 and only.measured == (1, 1, 1)


def test_more_stages_halve_the_candidates_each_time():
    found = rounds(Settings(fidelity=(512, 1024, 2048), probe_tokens=512, evaluations=30), ARMS["evolution"])
    assert found[1].measured == (8, 4, 2)


def test_profiles_of_earlier_runs_are_measured_too():
    without, having = (rounds(Settings(), ARMS["evolution"], remembered)[0] for remembered in (0, 2))
    assert having.measured[0] == without.measured[0] + 2


def test_the_brain_gets_as_many_turns_as_its_attempts_need():
    assert making_turns(8, samples=8) == ATTEMPTS
    assert making_turns(9, samples=8) == 2 * ATTEMPTS
    assert making_turns(0, samples=8) == 0


@pytest.mark.parametrize(("generations", "times"), [(1, 0), (2, 1), (4, 1), (5, 2), (8, 3)])
def test_slopes_are_measured_anew_every_few_generations(generations, times):
    assert slope_measurements(Settings(slopes=3), ARMS["hybrid"], generations) == times
    assert slope_measurements(Settings(slopes=1), ARMS["hybrid"], generations) == generations - 1
    assert slope_measurements(Settings(slopes=0), ARMS["hybrid"], generations) == 0
    assert slope_measurements(Settings(slopes=3), ARMS["evolution"], generations) == 0
