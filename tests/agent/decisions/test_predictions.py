"""What a brain expects is held against what came, by a proper score and beside whoever knows frequencies alone."""

from dataclasses import dataclass, replace
from statistics import fmean
from types import SimpleNamespace

import pytest

from self_pruner.agent.brain.scripted import FirstBrain, UniformBrain
from self_pruner.agent.compare.tables import ABSENT
from self_pruner.agent.decisions.choosers import Chooser, Said, SampledChooser
from self_pruner.agent.decisions.decision_set import Option
from self_pruner.agent.decisions.kinds import KINDS
from self_pruner.agent.decisions.predictions import Predicted, excess_of, means, predicted
from self_pruner.agent.decisions.score import Row, decide
from self_pruner.agent.decisions.table import calibration, expectations, page
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.profiles.shifts import EXPECTATIONS, Hypothesis, what_came

PROMPTS = PromptSet("default")


def option(outcome, error):
    return Option({}, ("-",), outcome, error)


@pytest.mark.parametrize(
    ("outcome", "error", "word"),
    [
        (-0.02, 0.01, "better"),
        (-0.01, 0.01, "same"),
        (0.01, 0.01, "same"),
        (0.02, 0.01, "worse"),
        (0.02, None, "worse"),
    ],
)
def test_within_one_standard_error_nothing_has_changed(outcome, error, word):
    assert what_came(outcome, error) == word


def test_the_score_is_over_what_the_brain_takes():
    situation = SimpleNamespace(options=(option(-0.02, 0.01), option(0.02, 0.01)), outcomes=[-0.02, 0.02])
    found = predicted(situation, [[0.6, 0.15, 0.0], [0.25, 0.0, 0.0]])  # takes the first three times in four
    assert found.said == pytest.approx((0.85, 0.15, 0.0))
    assert found.came == pytest.approx((0.75, 0.0, 0.25))
    assert found.brier == pytest.approx(0.75 * (0.2**2 + 0.2**2) + 0.25 * 2)
    never = predicted(situation, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert (never.brier, never.came) == (0, (1.0, 0.0, 0.0))


@dataclass
class Wavering(Chooser):
    """Sure of one word in every other order, and of another in the rest."""

    name: str = "wavering"
    how: str = "exact"

    def choose(self, prompts, variables, tool, calls, name):
        word = "better" if int(name.split("/")[1]) % 2 == 0 else "worse"
        said = [float(one["arguments"]["shift"]["expect"] == word) for one in calls]
        return Said([each / sum(said) for each in said], 1, 1, 0.0)


def test_every_order_is_scored_by_itself_and_not_what_they_say_on_average(decision_set):
    for one in decision_set.of("shift"):
        right = [what_came(each.outcome, each.error) for each in one.options]
        asked = fmean(2.0 * (word != came) for word in ("better", "worse") for came in right)
        found = decide(one, Wavering(), PROMPTS).predicted
        assert found.brier == pytest.approx(asked) and found.said == pytest.approx((0.5, 0.0, 0.5))
        assert found.came == pytest.approx([right.count(word) / len(right) for word in EXPECTATIONS])


def test_who_says_the_frequencies_is_as_good_as_they_are_and_who_is_sure_and_wrong_is_worse():
    came = [(0.5, 0.5, 0.0), (0.25, 0.25, 0.5)]
    frequencies = (0.375, 0.375, 0.25)
    squares = sum(share**2 for share in frequencies)
    said = [
        Predicted(frequencies, one, 1 - 2 * sum(a * b for a, b in zip(frequencies, one, strict=True)) + squares)
        for one in came
    ]
    assert means(said).came == pytest.approx(frequencies)
    assert excess_of(said) == pytest.approx([0, 0])
    assert min(excess_of([replace(one, brier=2.0) for one in said])) > 0


def test_a_shift_is_stated_as_a_hypothesis_and_other_kinds_as_they_are(decision_set):
    call = decision_set.of("shift")[0].options[0].call
    stated = KINDS["shift"].stated(call)
    shifts = [Hypothesis(**one["arguments"]["shift"]) for one in stated]
    assert [one.expect for one in shifts] == list(EXPECTATIONS)
    assert {str(one) for one in shifts} == {str(Hypothesis(**call["arguments"]["shift"]))}
    edit = decision_set.of("edit")[0].options[0].call
    assert KINDS["edit"].stated(edit) == [edit]


def row(brain, decision_set, draws):
    chooser = SampledChooser(brain._llm_type, brain, draws)
    decided = tuple(decide(one, chooser, PROMPTS) for one in decision_set.of("shift"))
    return Row(chooser.name, "default", chooser.how, "shift", decided)


def test_chance_expects_every_word_alike_and_the_first_is_as_often_the_last(decision_set):
    chance = means(row(UniformBrain(), decision_set, 256).predictions)
    assert chance.said == pytest.approx([1 / 3] * 3, abs=0.03)
    assert sum(chance.came) == pytest.approx(1)
    first = means(row(FirstBrain(), decision_set, 1).predictions)
    assert first.said == (0.5, 0.0, 0.5)


def test_the_page_says_what_was_expected_and_what_came(decision_set):
    found = replace(row(FirstBrain(), decision_set, 1), how="exact")
    sentence, (figures,) = calibration(found), [means(found.predictions)]
    assert sentence.startswith(
        f"shift: first with default (exact) expects 50% of its choices to be better, and "
        f"{100 * figures.came[0]:.0f}% are: its predictions are "
    )
    text = page(decision_set, [found], ["shift"])
    assert sentence in text and "What they expect of their choices:" in text
    assert f"| 50 / {100 * figures.came[0]:.0f} | 0 / {100 * figures.came[1]:.0f} | 50 / " in text


def test_of_samples_it_is_said_what_was_expected_and_not_how_good_that_was(decision_set):
    found = row(FirstBrain(), decision_set, 1)
    figures, sentence = means(found.predictions), calibration(found)
    assert sentence == (
        f"shift: first with default (1 samples an order) expects 50% of its choices to be better, and "
        f"{100 * figures.came[0]:.0f}% are; of samples no Brier score is given, which their noise would raise"
    )
    (cells,) = expectations([found]).rows
    assert cells[3].startswith("50 / ") and cells[-2:] == (ABSENT, ABSENT)
    (cells,) = expectations([replace(found, how="exact, 7 of 8 situations")]).rows
    assert cells[-2] == f"{figures.brier:.3f}" and cells[-1].startswith(("+", "-"))


def test_rows_that_were_scored_without_predictions_have_none_in_the_table(decision_set):
    found = row(FirstBrain(), decision_set, 1)
    before = replace(found, decided=tuple(replace(one, predicted=None) for one in found.decided))
    assert before.predictions == []
    assert "What they expect" not in page(decision_set, [before], ["shift"])
