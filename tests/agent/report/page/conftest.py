"""Runs that are looked at: finished, going on, failed, freshly begun."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from self_pruner.agent.report.html_report import write_report
from self_pruner.agent.report.page.server import Watch
from self_pruner.agent.run_files.run_directory import RunDirectory
from tests.agent.report.page.browser import Browser, served
from tests.agent.report.page.made_up import SETTINGS, finish, made_up


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind, called as it is; nobody may change them."""
    base = tmp_path_factory.mktemp("watched") / "runs"
    finish(made_up(base, "finished")).path.rename(base / "finished")
    running = made_up(base, "running", generations=2, over=False)
    (running.path / ".lock").write_text(str(os.getpid()))
    with open(running.trace, "ab") as trace:
        trace.write(b'{"kind": "think", "step": 99, "gen')  # it is writing
    running.path.rename(base / "running")
    failed = made_up(base, "failed", generations=1)
    failed.set_status("stopped", "RuntimeError: the disk <b>is</b> full")
    failed.path.rename(base / "failed")
    with RunDirectory.create(base, "begun", {"model": "tiny", **SETTINGS}, device="cpu", seed=0) as begun:
        begun.path.rename(base / "begun")
        (base / "begun" / ".lock").write_text(str(os.getpid()))
    return base


@pytest.fixture(scope="session")
def finished(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the page of a finished run."""
    return page_of(Path(shutil.copytree(runs / "finished", tmp_path_factory.mktemp("page") / "finished")))


@pytest.fixture
def live(started: Browser, runs: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on a copy of the runs: its address, and the folder."""
    base = Path(shutil.copytree(runs, tmp_path / "runs"))
    with served(Watch(base, token="the-token")) as address:
        yield address, base
        started.driver.get("about:blank")  # nobody asks a server that is gone


def page_of(run: Path) -> str:
    write_report(RunDirectory.open(run, strict=False))
    return f"file://{run}/report.html"
