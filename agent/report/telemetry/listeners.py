"""Who is told of a run's steps while it goes on, besides the screen: a collector of spans, a tracker of metrics.

They are told of the very records that the trace keeps, and read the rest in the run's directory. None of them can end
a run: where one fails, that is said once, and the run goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import TraceRecord
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.text.redaction import redact

OTEL = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "openinference-semantic-conventions")


class Listener(Protocol):
    """What a run can tell of itself to."""

    def see(self, record: TraceRecord) -> None:
        """Take in one record, when it is written."""

    def end(self) -> None:
        """The run ended, for now or for good: its directory says how."""


class Listeners:
    """Those that a run was asked to tell."""

    def __init__(self, settings: Settings, directory: RunDirectory, view: View) -> None:
        """Make them; one that cannot be made is said."""
        self.view = view
        self.known: dict[str, Listener] = {}
        if settings.otel:
            self._add("no spans are sent", lambda: _collector(settings, directory, view))
        if settings.track != "none":
            self._add(f"{settings.track} is told nothing more", lambda: _tracker(settings, directory, view))

    def see(self, record: TraceRecord) -> None:
        """Tell all of one record."""
        for name, listener in list(self.known.items()):
            self._guarded(name, partial(listener.see, record))

    def end(self) -> None:
        """Tell all that the run ended."""
        for name, listener in list(self.known.items()):
            self._guarded(name, listener.end)

    def _add(self, name: str, make: Callable[[], Listener]) -> None:
        self._guarded(name, lambda: self.known.update({name: make()}))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Call; where that fails for whatever reason, say once what it means."""
        try:
            call()
        except Exception as error:  # of a library, a network or a disk: no reason to lose a run
            self.known.pop(name, None)
            reason = redact(str(error)).strip().partition("\n")[0].rstrip(".")
            self.view.warn(f"{name}: {type(error).__name__}{': ' * bool(reason)}{reason[:300]}")


@contextmanager
def listening(settings: Settings, directory: RunDirectory, view: View) -> Iterator[Listeners]:
    """Those that are told of a run, until it ends in whatever way."""
    listeners = Listeners(settings, directory, view)
    try:
        yield listeners
    finally:
        listeners.end()


def check_listeners(settings: Settings) -> None:
    """Refuse to begin where a package is missing.

    Raises:
        SettingsError: it says how to install it.
    """
    if settings.otel:
        check_spans("--otel")
    if settings.track != "none" and not _installed(settings.track):
        extra = "track" if settings.track == "trackio" else settings.track
        raise SettingsError(
            f'--track {settings.track} needs a package that is not installed: pip install "self-pruner[{extra}]"'
        )


def check_spans(option: str) -> None:
    """Refuse `option` where the packages that make spans are missing; raises as `check_listeners`."""
    if not all(map(_installed, OTEL)):
        raise SettingsError(f'{option} needs packages that are not installed: pip install "self-pruner[otel]"')


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _collector(settings: Settings, directory: RunDirectory, view: View) -> Listener:
    from self_pruner.agent.report.telemetry.collector import Collector  # not above: optional packages

    return Collector(directory, view, content=settings.otel_content)


def _tracker(settings: Settings, directory: RunDirectory, view: View) -> Listener:
    from self_pruner.agent.report.telemetry.tracker import Tracker

    return Tracker(settings.track, directory, view)
