"""The fixtures of the tasks, and a run that is as far as its choice, made once for all tests of what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stopped import copied, do, stopped_run
from tests.tiny import tiny_folder
from tests.tools.evaluation.tasks.conftest import elastic, folder, suite, tokenizer  # noqa: F401

HELPS = ["--calibration-length", "256", "--calibration-sequences", "32", "--final-tokens", "256"]  # refits carry over


@pytest.fixture(scope="module", autouse=True)
def _warm(warm: None) -> None:
    """What these tests start need not be a new interpreter."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, which all tests here share."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all runs here share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def chosen(model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is about to choose, whose result will be the recalibrated weights; to be copied."""
    return stopped_run(tmp_path_factory.mktemp("runs"), model, cache, "--recalibrate", "--export", *HELPS)


@pytest.fixture(scope="session")
def undisturbed(chosen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run, resumed to its end without any failure; to be copied."""
    run = copied(chosen, tmp_path_factory.mktemp("whole"))
    do("resume", run)
    return run
