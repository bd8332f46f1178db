"""A fixed share of the offspring for the brain: what a sweep over its share compares."""

import pytest
from pydantic import ValidationError

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Think
from self_pruner.agent.search.planning.plan import plan_schema
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.panels import HYPOTHESES
from self_pruner.tools.profiles.shifts import LINE
from tests.agent.search.test_planning import HERE, plans
from tests.agent.search.test_search import Search
from tests.bench import tiny_settings


@pytest.mark.parametrize(
    "settings", [{"arm": "evolution"}, {"arm": "self"}, {"plan": "rule"}, {"plan": "step"}, {"autonomy": "free"}]
)
def test_a_share_of_a_brain_that_states_no_hypotheses_is_refused_in_a_sentence(settings):
    with pytest.raises(ValidationError, match="--brain-share .* takes --arm hybrid, --autonomy guided, and a --plan"):
        tiny_settings(brain_share=0.5, **settings)


def test_a_share_of_more_candidates_than_hypotheses_give_is_refused_in_a_sentence():
    most = HYPOTHESES * len(LINE)
    assert tiny_settings(brain_share=1.0, offspring=most).brain_share == 1.0
    with pytest.raises(
        ValidationError, match=f"--brain-share 1 of --offspring {most + 1} is more than {most} candidates"
    ):
        tiny_settings(brain_share=1.0, offspring=most + 1)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_none_or_all_or_between(share):
    with pytest.raises(ValidationError, match="equal to [01]"):
        tiny_settings(brain_share=share)


@pytest.mark.parametrize(("at_least", "stated"), [(1, 1), (2, 2), (HYPOTHESES, HYPOTHESES), (9, HYPOTHESES)])
def test_a_plan_can_be_asked_for_more_hypotheses(at_least, stated):
    tool = plan_schema(("hypotheses",), HERE, timeable=False, note=False, at_least=at_least)
    assert tool["function"]["parameters"]["properties"]["hypotheses"]["minItems"] == stated


@pytest.fixture(scope="module", params=[0.0, 0.5, 1.0])
def run(request, tmp_path_factory):
    """A search whose brain, random choices, makes that share of the offspring; to be looked at only."""
    search = Search(
        tmp_path_factory.mktemp("share"), UniformBrain(seed=3), brain_share=request.param, evaluations=40, patience=40
    )
    search.go()
    return search


def test_the_brain_makes_its_share(run):
    run.assert_valid()
    share, offspring = run.settings.brain_share, run.settings.offspring
    brains = int(share * offspring + 0.5)
    generations = {}
    for row in run.candidates():
        if row.generation:
            generations.setdefault(row.generation, []).append(row.proposed_by)
    assert len(generations) >= 3
    for made in list(generations.values())[:-1]:  # the last may be cut short
        assert made.count("brain") <= brains
        if brains < len(made):
            assert {"model", "chance"} & set(made)
        else:  # where its hypotheses have no room, the plainest operator fills up
            assert set(made) <= {"brain", "switch"}
    counts = [made.count("brain") for made in generations.values()]
    assert (
        max(counts) == brains if share < 1 else max(counts) > offspring // 2
    )  # few shifts are left in so small a model


def test_a_plan_has_the_hypotheses_that_the_share_needs_and_nobody_is_asked_for_none(run):
    share, offspring = run.settings.brain_share, run.settings.offspring
    stated = [len(record.plan["hypotheses"]) for record in plans(run)]
    assert bool(stated) == (share > 0)
    if share:
        assert max(stated) * len(LINE) >= share * offspring
    else:
        assert not any(isinstance(record, Think) and record.replies for record in run.records)


def test_beside_a_large_fixed_share_each_operator_has_a_turn_before_the_best_go_first(tmp_path):
    search = Search(tmp_path, UniformBrain(seed=3), brain_share=0.75, evaluations=40, patience=40)
    search.go()
    search.assert_valid()
    others = set(ARMS["hybrid"].vary) - {"brain"}  # two, and one place a generation is left
    assert others <= {row.proposed_by for row in search.candidates() if 1 <= row.generation <= 5}


@pytest.mark.parametrize("prompt_set", ["expert", "paper"])
def test_a_prompt_that_says_how_many_hypotheses_says_what_the_schema_does(tmp_path, prompt_set):
    for share, words in ((None, "one to three"), (0.5, "two or three"), (1.0, "three")):
        run = Search(tmp_path / words, UniformBrain(seed=1), prompt_set, brain_share=share)
        run.go()
        assert f"- hypotheses, {words}: " in plans(run)[0].prompt
