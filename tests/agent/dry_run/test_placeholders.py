"""Numbers that nobody has measured yet."""

from dataclasses import replace

import pytest

from self_pruner.agent.dry_run.placeholders import MEASURED, RANKED, Unmeasured, Unranked
from self_pruner.prompts.sample import sample_variables
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.variables import DenseFacts, UniformFacts


@pytest.mark.parametrize("made", [lambda x: x, round, lambda x: round(x, 2), lambda x: 100 * x, lambda x: x - 1.0, abs])
def test_a_figure_that_is_not_measured_says_so_whatever_is_made_of_it(made):
    value = made(Unmeasured())
    assert str(value) == f"{value}" == f"{value:.3f}" == f"{value:+.1f}" == MEASURED


def test_it_is_a_number_that_is_not_one():
    assert isinstance(Unmeasured(), float) and Unmeasured() != Unmeasured()


def test_a_layer_that_is_not_ranked_is_a_question_mark():
    assert str(Unranked()) == f"{Unranked():d}" == RANKED


@pytest.mark.parametrize("name", ["default", "paper"])
def test_every_prompt_set_shows_the_placeholder_where_it_would_show_a_figure(name):
    prompts = PromptSet(name)
    variables = sample_variables("vary", prompts.actions)
    run = replace(
        variables.run,
        dense=DenseFacts(Unmeasured()),
        uniform=UniformFacts(Unmeasured(), Unmeasured()),
        sensitivities=(),
    )
    system = prompts.render(replace(variables, run=run)).system
    assert system.count(MEASURED) == 3 and "nan" not in system.replace("nanogram", "")
