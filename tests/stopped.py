"""A run that was stopped once its search was done: cheap to make, and everything that `resume` reads is there."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from main import main
from self_pruner.agent import session

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--sensitivity-tokens", "64", "--reporting-tokens", "128", "--calibration-length", "64"),
    *("--calibration-sequences", "4", "--evaluations", "10", "--offspring", "3", "--initial", "2", "--population", "2"),
    *("--benchmarks", "0", "--sparsity", "0.3", "--brain", "first", "--no-recalibrate", "--no-export"),
]


def stopped_run(runs: Path, model: Path, cache: Path, *words: str) -> Path:
    """Makes a run below `runs` that was stopped before its final choice."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "choose", interrupted)
        places = ["--model", model, "--cache", cache, "--runs", runs]
        assert main([str(word) for word in [*places, *SMALL, *words]]) == 130  # as after Ctrl-C
    (run,) = runs.glob(f"{model.name}-*")
    return run


def copied(run: Path, to: Path) -> Path:
    """A copy of the run, to be changed; its memory stays the one that all copies share."""
    return Path(shutil.copytree(run, to / run.name))


@contextmanager
def in_place_of(folder: Path, other: Path) -> Iterator[None]:
    """While this lasts, `folder` is a copy of `other`."""
    aside = folder.rename(folder.with_name("aside"))
    shutil.copytree(other, folder)
    try:
        yield
    finally:
        shutil.rmtree(folder)
        aside.rename(folder)


def do(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One command line in this process, told as if it had been one of its own."""
    command = [str(word) for word in words]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = main(command)
    done = subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())
    if check:
        assert not status, done.stderr
    return done
