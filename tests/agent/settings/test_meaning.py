"""What is said of an arm is true of it with the settings that a run has."""

import pytest

from self_pruner.agent.compare.plan import parse_arm, plan
from self_pruner.agent.result.card_facts import brain_in_words
from self_pruner.agent.run_files.steering import asks_brain
from self_pruner.agent.settings.arms import ARM_NAMES, ARMS
from self_pruner.agent.settings.meaning import meaning_of
from self_pruner.agent.settings.settings import Settings
from tests.tools.export.test_card import card

EARNED = (
    "three quarters of the offspring are trust-region steps, and whoever makes the rest has the share that its yield "
    "earns"
)
SAID = [
    ({}, ARMS["hybrid"].meaning),
    ({"brain": "uniform"}, ARMS["hybrid"].meaning),
    ({"brain_share": 0}, f"no brain is asked; {EARNED}"),
    ({"brain_share": 0, "plan": "brain"}, f"the brain plans, but states no hypotheses; {EARNED}"),
    ({"plan": "rule"}, f"no brain is asked, a rule plans; {EARNED}"),
    (
        {"brain_share": 0.3},
        "the brain plans, the tool's operators follow; it has a fixed share of the offspring, three quarters of "
        "the others are trust-region steps, and whoever makes the rest has the share that its yield earns",
    ),
    (
        {"autonomy": "free"},
        "the brain calls any tool from the second generation on, the tool's operators stand in where it fails",
    ),
]


@pytest.mark.parametrize(("settings", "said"), SAID)
def test_of_an_arm_that_plans_it_says_what_is_left_to_the_brain(settings, said):
    assert meaning_of(Settings(**settings)) == said


def test_an_arm_that_does_not_plan_is_what_it_is():
    names = [name for name in ARM_NAMES if name != "hybrid"]
    assert [meaning_of(Settings(arm=name)) for name in names] == [ARMS[name].meaning for name in names]


def test_a_comparison_says_it_of_the_settings_of_an_arm_and_of_those_that_all_share():
    (own,) = plan(Settings(), [parse_arm("hybrid+brain-share=0")], [0.3], [0])
    (shared,) = plan(Settings(brain_share=0.5), [parse_arm("hybrid")], [0.3], [0])
    assert own.meaning == f"no brain is asked; {EARNED} (brain-share 0)"
    assert "it has a fixed share of the offspring" in shared.meaning


@pytest.mark.parametrize("settings", [{"brain_share": 0}, {"plan": "rule"}, {"arm": "evolution"}, {"arm": "uniform"}])
def test_a_card_names_no_brain_where_none_was_asked(settings):
    brain = brain_in_words(Settings(**settings))
    assert brain is None and not asks_brain(Settings(**settings))
    text = " ".join(str(card(brain=brain)).split())
    assert "[Self-Pruner](#how-it-was-made) decided, without a brain, how many key/value groups" in text
    assert "agent whose brain" not in text


def test_a_card_names_the_brain_that_was_asked():
    assert "[Self-Pruner](#how-it-was-made), an agent whose brain was the target model, searched how\nmany" in str(
        card()
    )
