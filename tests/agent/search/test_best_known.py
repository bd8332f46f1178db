"""What a run takes of earlier ones: their best profiles, unless they were found on the text of its final choice."""

from dataclasses import replace

import pytest

from self_pruner.agent.search.initial_population import best_known
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import FITNESS, Candidate, Score, Sensitivities
from self_pruner.memory.store import Memory
from tests.bench import tiny_bench, tiny_settings

HOLDOUT = range(4, 6)  # of the tiny settings, which rank on the sequences before it
FOUND, OTHER = Profile((4, 3, 4), (6, 8, 12)), Profile((4, 3, 4), (8, 6, 12))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tiny_bench(tmp_path_factory.mktemp("bench"), tiny_settings(), run="now")


@pytest.fixture
def known(bench, tmp_path):
    """Whose profiles a run begins with where the memory holds these facts."""

    def known(*facts):
        with Memory(tmp_path / "memory.sqlite", "tiny", {}) as memory:
            memory.record(*facts)
            return [detail for _, detail in best_known(replace(bench, memory=memory), 4)]

    return known


def candidate(run, profile=FOUND, number=1):
    return Candidate(run, f"c{number}", profile, (), "mutation", "switch", 1, 3, 0, 0, 9, "")


def scores(run, sequences, profile=FOUND, step=3):
    return [Score(profile, FITNESS, index, 0.5, 2.0, run, step) for index in sequences]


def test_what_a_final_choice_was_made_on_is_no_search(known, bench):
    assert bench.holdout == HOLDOUT
    assert known(candidate("a"), *scores("a", range(4)), *scores("a", HOLDOUT, step=-2)) == ["c1 of a"]


def test_a_run_that_ranked_on_the_holdout_gives_nothing_also_what_it_ranked_on_less(known):
    other = [candidate("a", OTHER, 2), *scores("a", range(4), OTHER)]
    assert known(candidate("a"), *scores("a", range(4)), *scores("a", range(4, 8)), *other) == []


def test_a_run_that_measured_sensitivities_on_the_holdout_gives_nothing(known):
    there = Sensitivities(OTHER, FITNESS, 5, ((0.0,),), ((0.0,),), "a", 3)
    assert known(candidate("a"), *scores("a", range(4)), there) == []


def test_a_run_that_took_all_its_ranking_on_the_holdout_from_another_gives_nothing_of_it(known):
    first = [candidate("a"), *scores("a", range(8))]
    clean = [candidate("c", OTHER), *scores("c", range(4), OTHER)]
    assert known(*first, candidate("b"), *clean) == ["c1 of c"]
