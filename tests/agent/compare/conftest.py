"""Comparisons start runs, as processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.settings.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def _warm(warm: None) -> None:
    """What these tests start need not be a new interpreter."""


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """The folder of a comparison of three runs none of which has begun; one arm has prompts of its own."""
    prompts = tmp_path / "brave"
    prompts.mkdir()
    (prompts / "ask_plan.j2").write_text("Task: be brave.")
    folder = tmp_path / "compared"
    arms = ("hybrid", f"hybrid:{prompts}", "uniform")
    ComparisonFolder(folder, arms, (0.3,), (0,), Settings(model="tiny")).save()
    return folder
