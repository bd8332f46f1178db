"""Settings and figures of a run for a tracker of metrics: Trackio, or Weights & Biases, whose calls it shares."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Judge, TraceRecord
from self_pruner.agent.settings.limits import cost
from self_pruner.agent.view import View
from self_pruner.tools.text.redaction import redact, without_keys

PROJECT = "self-pruner"
WAIT = 30.0  # seconds that a run waits for a tracker's server, when it begins and when it ends
# Each is to keep to what it is told, and off the screen: the command line and the machine are none of its business.
QUIET: dict[str, dict[str, Any]] = {
    "trackio": {"auto_log_cpu": False, "auto_log_gpu": False, "embed": False},
    "wandb": {
        "settings": {
            **{"silent": True, "console": "off"},
            **{"init_timeout": WAIT, "finish_timeout": WAIT, "finish_timeout_raises": True},
            **{"disable_git": True, "save_code": False, "x_disable_meta": True, "x_disable_stats": True},
        }
    },
}


class Tracker:
    """Tells a tracker of a run: the best fitness against tokens, generation by generation, and the final table."""

    def __init__(self, name: str, run: RunDirectory, view: View) -> None:
        """Begin, or go on where the run is resumed; `name` is that of the tracker's package."""
        self.name, self.run, self.view = name, run, view
        self.generation: int | None = None  # the last one that was told
        self.warned = self.said = ""  # the first that the tracker warned of, and what of it was said
        self.show = warnings.showwarning
        warnings.showwarning = self._warned  # type: ignore[assignment]
        os.environ.setdefault("WANDB_SILENT", "true")
        more = {"id": run.id} if name == "wandb" else {}
        known = {"project": PROJECT, "name": run.name, "config": without_keys(run.settings), "resume": "allow"}
        try:
            with self._silent():
                self.package = import_module(name)
                self.package.init(**known, **more, **QUIET[name])
        except BaseException:
            warnings.showwarning = self.show
            raise

    def see(self, record: TraceRecord) -> None:
        """Tell of a generation that ended."""
        if not isinstance(record, Judge) or record.fitness is None:
            return
        if record.stop is None and record.generation == self.generation:
            return
        self.generation = record.generation
        figures = {"fitness": record.fitness, "generation": record.generation - 1, **record.spent}
        with self._silent():
            self.package.log(figures, step=cost(record.spent))

    def end(self) -> None:
        """Tell the final table and where the checkpoint is, as far as they are known."""
        outcome = read_outcome(self.run.path)
        with self._silent():
            if outcome is not None:
                figures: dict[str, Any] = {
                    f"{row.name}/{figure}": value
                    for row in outcome.rows
                    for figure, value in row.model_dump(exclude={"name"}, exclude_none=True).items()
                }
                if outcome.verified is not None:
                    figures["checkpoint"] = str(self.run.model)
                self.package.log(figures)
            self.package.finish()
        warnings.showwarning = self.show

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Keep what the tracker prints off the screen; what it first warned of is said once, in a sentence."""
        with redirect_stdout(io.StringIO()):
            yield
        if self.warned != self.said:
            self.said = self.warned
            self.view.warn(redact(self.warned))

    def _warned(self, message: Warning | str, category: type[Warning], file: str, *rest: Any) -> None:
        """Take in what the tracker warns of, in whichever thread."""
        if f"{os.sep}{self.name}{os.sep}" not in file:
            self.show(message, category, file, *rest)
        elif not self.warned:
            self.warned = " ".join(str(message).split())
