"""Whole runs, as a user carries them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from main import main


@pytest.fixture(scope="module", autouse=True)
def _warm(warm: None) -> None:
    """What these tests start need not be a new interpreter."""


@pytest.fixture
def carried_out(
    model: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Carries out a run of the module's model in `tmp_path/runs`; returns (status, standard output, standard error)."""

    def carried_out(*words: str) -> tuple[int, str, str]:
        status = main(["--model", str(model), "--runs", str(tmp_path / "runs"), "--cache", str(cache), *words])
        output = capfd.readouterr()
        return status, output.out, output.err

    return carried_out
