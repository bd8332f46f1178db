"""Fixtures of the tests of run directories."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def lost_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes the name of a new run at the last moment, and has a file in it."""
    rename = Path.rename

    def race(self: Path, target: Path) -> Path:
        if target.name == "tiny-20261123-090507":
            target.mkdir()
            (target / "theirs").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", race)
