"""What is put together in one comparison is of one model, and of one brain an arm."""

from __future__ import annotations

from datetime import datetime
from unittest.mock import Mock

import pytest

from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.compare.joining import begin, check_bound
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from tests.agent.compare.invented import run_result

OTHER = "hybrid+brain=other"


def conditions(brain: str | None) -> Conditions:
    return Conditions(
        weights="1a",
        commit=None,
        device="cpu",
        dtype="float32",
        texts={},
        tokenizer="2b",
        versions={},
        memory="",
        brain=brain,
    )


@pytest.fixture
def made(tmp_path) -> ComparisonFolder:
    made = ComparisonFolder(tmp_path / "compared", (OTHER, "hybrid"), (0.3,), (0, 1), Settings(model="tiny"))
    made.save()
    for run in made.planned():
        if run.seed == 0:
            made.keep(run, run_result(run.spec.text, 30.0, brain="3c" if run.spec.text == OTHER else None))
    return made


def test_comparisons_that_are_begun_in_the_same_second_each_have_a_folder_of_their_own(tmp_path, model, monkeypatch):
    given = {"model": str(model), "runs": tmp_path / "runs"}
    clock = Mock(now=lambda: datetime(2026, 12, 1, 13, 30))
    monkeypatch.setattr("self_pruner.agent.compare.joining.datetime", clock)

    def begun() -> str:
        return begin(given, ["uniform"], None, "1", None, (), View()).path.name

    with pytest.raises(SettingsError, match="neither a count"):
        begin(given, ["uniform"], None, "one", None, (), View())
    assert not (tmp_path / "runs").exists()
    first = begun()
    assert first == f"compare-{model.name}-20261201-133000" and begun() == f"{first}-2"

    def another(comparison, elsewhere):  # of another process, begun after this one has looked
        comparison.path.mkdir()

    monkeypatch.setattr("self_pruner.agent.compare.joining.check_prompts", another)
    assert begun() == f"{first}-4"


def test_an_arm_whose_brain_is_another_one_now_than_in_its_finished_runs_is_refused(made):
    settings = Settings(model="tiny", brain="other")
    check_bound(made, settings, conditions("3c"), View())
    with pytest.raises(
        RunDirectoryError, match="the brain of hybrid.brain=other has other weights or another tokenizer"
    ):
        check_bound(made, settings, conditions("4d"), View())
    check_bound(made, Settings(model="tiny"), conditions("4d"), View())  # whose runs ask themselves


def test_no_record_is_read_where_no_other_model_is_asked(made, monkeypatch):
    monkeypatch.setattr(ComparisonFolder, "record_of", lambda *_: pytest.fail("a record is read"))
    check_bound(made, Settings(model="tiny"), conditions(None), View())
