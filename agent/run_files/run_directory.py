"""A run directory: one folder with everything needed to inspect, resume, replay and report a run.

`settings.toml` and `environment.json` are written once, before the folder gets its name; `status.json` says how far the
run came; the other files belong to whoever writes them and have their place named here. A run is worked on by one
process at a time, which holds a lock that the system drops with the process, however it dies.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

from self_pruner.agent.run_files.atomic_write import WriteError, atomic_write, sync_folder
from self_pruner.agent.run_files.environment import describe
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.run_files.seal import seal
from self_pruner.agent.run_files.tables import instead_of_run, read_table, settings_file
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.paths import numbered
from self_pruner.memory.run_records import RECORDS

Status = Literal["running", "finished", "stopped"]
RESULT = "result.json"  # in a run's folder once it has chosen
STOPPED_BY_USER = "stopped by the user"  # the reason of a run that a signal stopped; any other says what failed

_NAME = re.compile(r".+-(\d{8}-\d{6})(?:-(\d+))?")


class NoRunError(RunDirectoryError):
    """There is no run where one was looked for."""


@dataclass
class RunDirectory:
    """The folder of one run; a context manager that lets go of the run on leaving."""

    path: Path
    settings: dict[str, Any]  # as resolved when the run was made, without those that were None
    environment: dict[str, Any]  # versions, machine, device, seed, when it was made
    fault: str = ""  # what is wrong with environment.json, where that may be
    _lock: RunLock | None = field(default=None, repr=False)

    @classmethod
    def create(
        cls,
        base: Path,
        model: str,
        settings: Mapping[str, object],
        *,
        device: str,
        seed: int,
        now: datetime | None = None,
    ) -> RunDirectory:
        """Makes `base/<model>-<YYYYmmdd-HHMMSS>`, with `-2`, `-3`, ... after it where that exists, and locks it.

        Args:
            base: the folder of all runs, made where there is none.
            model: the target model as the user named it: an alias, a hub id or a path, of which the last part is used.
            settings: resolved settings: strings, numbers, booleans, None, and lists or tuples of them.
            device: what the run computes on.
            seed: the run's seed.
            now: the time in the name; local time where not given.

        Raises:
            RunDirectoryError: `base` cannot be made or written; nothing is left behind.
            SettingsError: a setting that no UTF-8 file can hold.
        """
        now = now or datetime.now()
        text = settings_file(settings)
        environment = describe(device, seed, now)
        stem = f"{_model_name(model)}-{now:%Y%m%d-%H%M%S}"
        environment["run"] = f"{stem}-{secrets.token_hex(4)}"
        environment["seal"] = seal(environment["run"], text)
        try:
            base.mkdir(parents=True, exist_ok=True)
            made = (cls._claim(path, text, environment) for path in numbered(base / stem))
            return next(run for run in made if run is not None)
        except OSError as error:
            raise RunDirectoryError(f"cannot make a run directory in {base}: {error.strerror or error}") from error
        except WriteError as error:
            raise RunDirectoryError(f"cannot make a run directory in {base}: {error}") from error

    @classmethod
    def _claim(cls, path: Path, settings: str, environment: dict[str, Any]) -> RunDirectory | None:
        """Makes the run aside and renames it to `path`; None where that is taken."""
        partial = path.with_name(f".{path.name}.partial")
        if path.exists():
            return None
        try:
            partial.mkdir()
        except FileExistsError:  # another process is making that very run, or died while doing so
            return None
        run = cls(partial, tomllib.loads(settings), environment)
        try:
            atomic_write(partial / "settings.toml", settings)
            atomic_write(partial / "environment.json", json.dumps(environment, indent=2) + "\n")
            run.set_status("running")
            run.prompts.mkdir()
            run._lock = RunLock(partial)
            try:
                partial.rename(path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                run.close()
                shutil.rmtree(partial)
                return None
            sync_folder(path.parent)
        except BaseException:
            run.close()
            with suppress(OSError):  # what stopped the writing may stop the tidying too
                shutil.rmtree(partial)
            raise
        run.path = path
        return run

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = False, strict: bool = True) -> RunDirectory:
        """Reads the run at `path`.

        Args:
            path: a run directory.
            exclusive: also lock it, which whoever writes to it must.
            strict: refuse a run whose environment.json is missing or damaged; else `fault` says so, and it is empty.

        Raises:
            NoRunError: there is no run at `path`.
            RunDirectoryError: exclusive, and another process holds it.
            RunDirectoryError: a file of the run is damaged or cannot be read.
            RunDirectoryError: the run cannot be locked here.
        """
        path = Path(path)
        if not (path / "settings.toml").is_file():
            raise NoRunError(f"there is no run in {path}: {instead_of_run(path)}")
        settings = read_table(path / "settings.toml", tomllib.loads)
        if not settings:  # as a file that was never filled: the defaults would be another run
            raise RunDirectoryError(f"{path / 'settings.toml'} is damaged: it is empty")
        environment, fault = {}, ""
        try:
            environment = read_table(path / "environment.json", json.loads)
        except RunDirectoryError as error:
            if strict:
                raise
            fault = str(error)
        run = cls(path, settings, environment, fault)
        if run.latency_table.is_file():  # the very table that the run was begun with
            settings["latency_table"] = str(run.latency_table)
        if exclusive:
            run._lock = RunLock(path)
        return run

    @classmethod
    def resume(cls, path: Path) -> RunDirectory:
        """Opens the run at `path` to go on with it, locked.

        Raises:
            RunDirectoryError: nothing is left to do.
            SelfPrunerError: as for `open`.
        """
        run = cls.open(path, exclusive=True)
        try:
            run.check_unfinished()
        except BaseException:
            run.close()
            raise
        return run

    def check_unfinished(self) -> None:
        """Refuse to go on with a run that is finished.

        Raises:
            RunDirectoryError: nothing is left to do.
        """
        if self.status == "finished":
            raise RunDirectoryError(
                f"the run {self.path} is finished, so there is nothing to do: start a new one, or look at it with "
                "report or trace"
            )

    @classmethod
    def latest(cls, base: Path) -> Path:
        """The newest run below `base`, by the time in its name.

        Raises:
            NoRunError: there is none.
        """
        try:
            folders = [folder for folder in base.iterdir() if (folder / "settings.toml").is_file()]
        except OSError as error:
            raise NoRunError(f"there is no run in {base}: {error.strerror}") from error
        runs = [(match[1], int(match[2] or 1), folder) for folder in folders if (match := _NAME.fullmatch(folder.name))]
        if not runs:
            raise NoRunError(f"there is no run in {base}")
        return max(runs)[2]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def id(self) -> str:
        """By which memory and checkpoints know the run: no other run has it, and it outlives a renamed folder."""
        return str(self.environment.get("run", self.path.name))

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.sqlite"

    @property
    def records(self) -> Path:
        """What the run made and measured."""
        return self.path / RECORDS

    @property
    def trace(self) -> Path:
        """The record of every step."""
        return self.path / "trace.jsonl"

    @property
    def asked(self) -> Path:
        """What the brain was asked, before it became a prompt."""
        return self.path / "asked.jsonl"

    @property
    def prompts(self) -> Path:
        """The exact templates used."""
        return self.path / "prompts"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def model(self) -> Path:
        """The pruned checkpoint; exists once exported."""
        return self.path / "model"

    @property
    def latency_table(self) -> Path:
        """The table of a budget in time; exists in runs that have one."""
        return self.path / "latency_table.json"

    @property
    def status(self) -> Status:
        """How far the run came; a run that was killed still says "running", though nobody holds it."""
        status = read_table(self.path / "status.json", json.loads).get("status")
        if status not in get_args(Status):
            raise RunDirectoryError(f"{self.path / 'status.json'} is damaged: unknown status {status!r}")
        return cast(Status, status)

    @property
    def reason(self) -> str:
        """Why the run has its status, in a sentence; empty while it runs."""
        return str(read_table(self.path / "status.json", json.loads).get("reason", ""))

    def set_status(self, status: Status, reason: str = "") -> None:
        """Writes the status aside and renames it into place.

        Raises:
            WriteError: no permission or no room.
        """
        atomic_write(self.path / "status.json", json.dumps({"status": status, "reason": reason}) + "\n")

    def close(self) -> None:
        """Lets go of the run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _model_name(model: str) -> str:
    """The last part of an alias, hub id or path, in characters that any file system takes."""
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-")[:80] or "model"
