"""A run that is told to a collector, made once for all tests of what it was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from main import main
from tests.agent.report.telemetry.collector import Collector, collecting
from tests.stopped import SMALL
from tests.tiny import tiny_folder

Begin = Callable[..., tuple[int, Path]]
HEADERS = "x-key=of-the-collector"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, which all tests here share."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def begin(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Carries out a small run of the tiny model; returns its status and its directory."""
    cache = tmp_path_factory.mktemp("cache")

    def begin(*words: str) -> tuple[int, Path]:
        runs = tmp_path_factory.mktemp("runs")
        status = main(["--model", str(model), "--cache", str(cache), "--runs", str(runs), *SMALL, *words])
        (path,) = runs.glob("tiny-*")
        return status, path

    return begin


@pytest.fixture(scope="session")
def told(begin: Begin) -> tuple[Path, Collector]:
    """A run whose brain is asked, and what its collector was sent, prompts and replies too."""
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", HEADERS)
        patch.setenv("OTEL_SERVICE_NAME", "pruning")
        status, path = begin("--brain", "self", "--otel", "--otel-content")
        assert status == 0
        return path, collector
