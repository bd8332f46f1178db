"""Which brain answers to a name, and where it is from."""

from __future__ import annotations

from unittest.mock import Mock

from self_pruner.agent.decisions.brains import open_brain
from self_pruner.agent.prepare import brain as prepared
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View


def test_another_brain_is_told_by_the_folder_that_its_own_is_in_and_looked_up_once(model, monkeypatch):
    resolve = Mock(side_effect=prepared.resolve)
    monkeypatch.setattr("self_pruner.agent.prepare.brain.resolve", resolve)
    monkeypatch.setattr("self_pruner.tools.models.source.resolve", resolve)
    found = open_brain(str(model), Settings(model=str(model), device="cpu"), None, View())
    assert (found.name, found.place) == (model.name, model.resolve().parent.name)
    assert len(found.fingerprint) == 64 and resolve.call_count == 1
