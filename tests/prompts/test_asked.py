"""Turns as a brain was asked them are kept where that can be done; where it cannot, the run goes on without."""

from dataclasses import replace

import pytest

from self_pruner.prompts.asked import AskedError, AskedTurn, keep, recall
from self_pruner.prompts.sample import sample_variables


def turn(step: int, **history) -> AskedTurn:
    variables = sample_variables("plan", ())
    variables = replace(variables, history=replace(variables.history, **history))
    return AskedTurn(step, variables, (), (), 1, 0, 100)


def test_a_turn_that_no_file_can_hold_is_not_kept_and_stops_nothing(tmp_path):
    path = tmp_path / "asked.jsonl"
    keep(path, turn(1, notes=("half a character \udcff",)))
    keep(path, turn(2, notes=("a line\u2028and another\n",)))
    keep(tmp_path, turn(3))  # a folder
    assert recall(path, 2) == turn(2, notes=("a line\u2028and another\n",))
    with pytest.raises(AskedError, match="steps are 2"):
        recall(path, 1)
