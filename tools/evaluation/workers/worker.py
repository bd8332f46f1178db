"""One worker: walks of its own over layers of its own. What a Ray actor runs, in a process on a GPU or a CPU share."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from self_pruner.memory.errors import KeptFileError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.pruning.store import LayerStore
from self_pruner.tools.pruning.streamed import StreamedLayers

Walks = Mapping[str, PopulationWalk]  # by name of the text


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker did beside its answer, to be counted where the run is."""

    factorisations: int
    refits: int
    factored: frozenset[Any]  # places
    warnings: tuple[str, ...]  # all so far
    layers_read: int
    bytes_read: int


class CountedLayers:
    """A `LayerStore` that tells of every use of a layer: what shows that a worker goes on."""

    def __init__(self, store: LayerStore, use: Callable[..., None]) -> None:
        self._store, self._use = store, use

    def __len__(self) -> int:
        return len(self._store)

    def layer(self, index: int) -> AbstractContextManager[nn.Module]:
        """Layer `index` of the store."""
        self._use()
        return self._store.layer(index)

    def reorder(self, index: int, permute: Callable[[nn.Module], None]) -> None:
        """Pass it on."""
        self._store.reorder(index, permute)


class Worker:
    """Carries out shares of walks, one at a time, and says meanwhile how far it is."""

    def __init__(self) -> None:
        self._walks: Walks = {}
        self._threads = 1
        self._steps = 0

    def place(self, files: Sequence[Path]) -> tuple[str, list[Path]]:
        """The name of its machine, and which of `files` are not there."""
        return socket.gethostname(), [path for path in files if not path.is_file()]

    def receive(self, path: Path, piece: bytes, at: int, size: int) -> None:
        """Write a piece of a file that is not on this machine; the last one puts it in its place."""
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("r+b" if at else "wb") as file:
                file.seek(at)
                file.write(piece)
            if at + len(piece) == size:
                part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            where = f"the worker on {socket.gethostname()}"
            raise KeptFileError(f"{where} cannot keep {path.name} in {path.parent}: {error.strerror}") from error

    def start(self, make: Callable[[], Walks], threads: int, neighbours: int) -> None:
        """Make the walks.

        Args:
            make: makes them.
            threads: to compute with at most.
            neighbours: workers on one machine, this one included, which share its cores.
        """
        self._threads = threads_of(threads, neighbours)
        torch.set_num_threads(self._threads)
        self._walks = make()
        for walk in self._walks.values():
            walk.store = CountedLayers(walk.store, self._step)

    def steps(self) -> int:
        """How many uses of layers and blocks there were so far; answered while a share is carried out."""
        return self._steps

    def measure(self, text: str, profiles: Sequence[Profile], rows: range) -> tuple[list[Measurement], Work]:
        """`PopulationWalk.measure` on `text`, and what it took."""
        return self._worked(text, lambda walk: walk.measure(profiles, rows, self._step))

    def first_order(self, text: str, profile: Profile, sequences: Sequence[int]) -> tuple[list[Any], Work]:
        """`PopulationWalk.first_order` on `text`, and what it took."""

        def taken(walk: PopulationWalk) -> list[tuple[int, Costs]]:
            return list(walk.first_order(profile, sequences))

        return self._worked(text, taken)

    def _worked(self, text: str, action: Callable[[PopulationWalk], Any]) -> tuple[Any, Work]:
        torch.set_num_threads(self._threads)  # which is told thread by thread, and Ray calls from several
        walk = self._walks[text]
        made, store = walk.elastic.compensator, walk.elastic.store
        before = (made.factorisations, made.refits, *_read(store))
        found = action(walk)
        factorisations, refits, layers, read = (
            now - then for now, then in zip((made.factorisations, made.refits, *_read(store)), before, strict=True)
        )
        return found, Work(factorisations, refits, frozenset(made.factored), tuple(made.warnings), layers, read)

    def _step(self, *_: int) -> None:
        self._steps += 1


def _read(store: LayerStore) -> tuple[int, int]:
    return (store.layers_read, store.bytes_read) if isinstance(store, StreamedLayers) else (0, 0)


def threads_of(threads: int, neighbours: int) -> int:
    """Threads of one of `neighbours` workers on this machine, `threads` at most."""
    return max(1, min(threads, _cores() // neighbours))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
