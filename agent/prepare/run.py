"""One run: how it is set, where it lies, what was prepared for it, and where it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
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
