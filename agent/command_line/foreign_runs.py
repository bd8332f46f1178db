"""Runs from elsewhere: what one that this user did not make here would use of this machine, asked before it does.

A run directory names programs, endpoints and files. Whoever made it here meant them; in one that somebody sent, or
edited, they are the wishes of a stranger.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from self_pruner.agent.run_files.binding import check_settings
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.seal import holds
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.paths import expanded
from self_pruner.tools.models.aliases import names
from self_pruner.tools.text.local import NAMES


def consent(path: Path, yes: bool, view: View) -> None:
    """Before a run or comparison goes on: where it is from elsewhere, say what it would use, and ask.

    Args:
        path: of the run or the comparison.
        yes: it may, said beforehand.
        view: where it is said.

    Raises:
        RunDirectoryError: it may not, or there is nobody to ask.
        RunDirectoryError: settings were edited on which figures depend.
        RunDirectoryError: there is no run, or a file of it is damaged.
    """
    if holds_comparison(path):
        from self_pruner.agent.compare.folder import PLAN, ComparisonFolder

        comparison = ComparisonFolder.open(path.resolve())
        files = [path, path / PLAN]
        own = comparison.sealed
        wishes = [run.settings for run in comparison.planned()]
    else:
        run = RunDirectory.open(path)
        check_settings(run, None)  # with these edited it goes on for nobody
        file = run.path / "settings.toml"
        files = [path, file, *(one for one in (run.checkpoint, run.trace) if one.exists())]
        own = holds(run.environment.get("seal"), run.id, file.read_text(encoding="utf-8"))
        wishes = [make_settings(run.settings)]
    if own and {file.stat().st_uid for file in files} == {os.geteuid()}:
        return
    wanted = list(dict.fromkeys(one for settings in wishes for one in uses(settings, path)))
    if not wanted:
        return
    begun = f"{path} was made on another machine or by another user, or was edited since"
    if not yes and not (view.asks and sys.stdin.isatty()):
        raise RunDirectoryError(f"{begun}; it would {', '.join(wanted)}: --yes says that it may")
    view.line(f"{begun}. It would", "yellow")
    for one in wanted:
        view.line(f"  {one}", "yellow")
    if not yes and not _agrees():
        raise RunDirectoryError(f"{path} may not, so nothing was done")


def holds_comparison(path: Path) -> bool:
    """Whether `path` is the folder of a comparison; of a run, or of nothing, that is known without loading torch."""
    if not path.is_dir() or (path / "settings.toml").exists():
        return False
    from self_pruner.agent.compare.folder import is_comparison

    return is_comparison(path)


def uses(settings: Settings, folder: Path) -> list[str]:
    """What a run with these settings would use of a machine outside of `folder`, in words, the worst first."""
    found = []
    found += [f"run the program {path}" for path in (settings.vllm_python, settings.llama_python) if path is not None]
    if settings.trust_remote_code:
        models = [settings.model, *([settings.other_brain] if settings.other_brain else [])]
        found.append(f"run code that comes with the model {' and with '.join(models)}, or lies in {folder / 'model'}")
    if settings.brain_url is not None:
        from self_pruner.agent.brain.endpoint import KEY  # not above: it takes an HTTP client

        key = f" with the key in {KEY}" if KEY in os.environ else ""
        found.append(f"send its prompts to {settings.brain_url}{key}")
    if settings.ray_address is not None:
        found.append(f"send its model and texts to the Ray cluster at {settings.ray_address}")
    if settings.otel:
        found.append("send its steps to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names")
    if settings.track != "none":
        found.append(f"send its settings and figures to {settings.track}")
    written = (settings.memory_path, settings.cache)
    texts = (settings.calibration, *settings.fitness_texts, *settings.reporting_texts)
    read = (settings.model, settings.other_brain, settings.prompts, settings.task_data, settings.latency_table, *texts)
    found += [f"write to {path}" for path in _outside(written, folder)]
    found += [f"read {path}" for path in _outside((one for one in read if _is_path(one)), folder)]
    return found


def _outside(paths: Iterable[Path | str | None], folder: Path) -> list[Path]:
    known = [expanded(path) for path in paths if path is not None]
    return [path for path in dict.fromkeys(known) if not path.resolve().is_relative_to(folder.resolve())]


def _is_path(text: Path | str | None) -> bool:
    """Whether a setting names a file or folder; models and texts may also be named by what they are called."""
    if text is None or isinstance(text, Path):
        return text is not None
    return text.lower() not in (*NAMES, *names()) and expanded(text).exists()


def _agrees() -> bool:
    try:
        return input("May it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
