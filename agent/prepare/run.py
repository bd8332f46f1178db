"""One run: how it is set, where it lies, what was prepared for it, and where it is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.search.initial_population import is_probed, probe_uniform, with_costs
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluation.shortage import is_out_of_memory
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.text.quantities import size
from self_pruner.tools.workbench import Workbench


@dataclass(frozen=True)
class Run:
    """What everything that is done in a run needs."""

    settings: Settings
    directory: RunDirectory
    prepared: Prepared
    view: View

    @property
    def bench(self) -> Workbench:
        """What the tools work on."""
        return self.prepared.bench

    def end_stream(self) -> None:
        """Say what streaming cost, where layers were streamed; their files are read no more."""
        if isinstance(streamed := self.bench.elastic.store, StreamedLayers):
            self.view.line(f"Streamed: every layer {streamed.passes:.0f} times, {size(streamed.bytes_read)} read.")
            streamed.close()


def announce(directory: RunDirectory, settings: Settings, view: View, *, resumed: bool) -> None:
    """Say which run begins, or goes on."""
    said = f"{'Resuming' if resumed else 'Run'} {directory.path}"
    view.tell("run", said, whole=True, run=str(directory.path), resumed=resumed, settings=settings.to_toml())


def in_words(error: Exception, settings: Settings) -> Exception:
    """The error as a sentence a person can act on, where it is one of memory or of the checkpoint file."""
    if is_out_of_memory(error):
        reason = str(error).partition("\n")[0].partition(". ")[0]
        return SettingsError(
            f"{settings.model} does not fit on {settings.device}: {reason}; if another process has taken memory since "
            "the run was planned, wait for it, else try --device cpu, --dtype bfloat16 or a smaller model"
        )
    if isinstance(error, sqlite3.Error):
        return RunDirectoryError(f"the run's checkpoint.sqlite cannot be read or written: {error}")
    return error


@contextmanager
def in_sentences(settings: Settings) -> Iterator[None]:
    """Faults of memory are raised as `in_words` says them."""
    try:
        yield
    except Exception as error:
        said = in_words(error, settings)
        if said is error:
            raise
        raise said from error


def with_probes(prepared: Prepared, settings: Settings, view: View, prompts: Path | None) -> Prepared:
    """Probe every place, where the arm or its prompts make use of that, and measure what the prompts quote.

    Args:
        prepared: what was prepared otherwise.
        settings: those of the run.
        view: where it is shown.
        prompts: the folder of the run's own, or whose files replace those of the set; None for none.
    """
    bench, arm = prepared.bench, ARMS[settings.arm]
    if is_probed(arm, PromptSet(settings.prompts_of_arm, prompts)):
        with view.phase("Sensitivity probes") as progress:
            bench = with_costs(bench, settings.probe_tokens, progress)
    if arm.asks_brain:
        probe_uniform(bench)
    return replace(prepared, bench=bench)
