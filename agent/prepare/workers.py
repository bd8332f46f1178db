"""Several workers: how many a run has, and what each makes its walks from.

A worker loads the checkpoint from its path and the calibration and dense targets from the cache, so what goes over the
wire is short. It reorders units as the run did, and is refused where the checkpoint is another.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from self_pruner.agent.prepare.bill import (
    AT_WORK,
    STATE_MEMORY,
    TARGETS,
    WORK_SPACE,
    Line,
    needed,
    prefix_memory,
    refit_memory,
    remembered,
    work_of,
)
from self_pruner.agent.prepare.devices import device_of
from self_pruner.agent.prepare.placement import Placement
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.evaluation.workers import cluster
from self_pruner.tools.evaluation.workers.pool import Room
from self_pruner.tools.models.source import ModelSource, load
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import Orders
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.text.quantities import size
from self_pruner.tools.workbench import FITNESS

PROCESS = 600_000_000  # bytes of Python and its libraries in a worker


@dataclass(frozen=True)
class Recipe:
    """What a worker makes its walks from: called in its process."""

    checkpoint: Path
    fingerprint: str
    device: str  # cpu, or cuda for the GPU that the worker has
    dtype: str
    trust_remote_code: bool
    streamed: bool
    calibration: Path
    cut: Mapping[str, Any]  # how: arguments of the elastic model
    orders: Orders
    targets: Mapping[str, Path]  # by name of the text
    searched: int  # sequences of the fitness text that generations are measured on

    @property
    def files(self) -> tuple[Path, ...]:
        """Those in the cache."""
        return self.calibration, *self.targets.values()

    def __call__(self) -> dict[str, PopulationWalk]:
        """The walks, by name of the text.

        Raises:
            ModelError: the checkpoint is not to be seen, or another.
        """
        host = socket.gethostname()
        if not self.checkpoint.is_dir():
            raise ModelError(
                f"the worker on {host} cannot see the checkpoint {str(self.checkpoint)!r}: it must be under the same "
                "path on every machine, on a file system that they share or as a copy"
            )
        loaded = load(
            ModelSource(self.checkpoint.name, "folder", str(self.checkpoint)),
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            layers=not self.streamed,
        )
        if loaded.fingerprint != self.fingerprint:
            raise ModelError(f"the worker on {host} sees another checkpoint in {str(self.checkpoint)!r} than the run")
        elastic = ElasticModel(
            loaded.model,
            Calibration.load(self.calibration),
            **self.cut,
            orders=self.orders,
            refit_memory=refit_memory(self.device, streamed=self.streamed),
            store=StreamedLayers(loaded.model, loaded.files) if loaded.files is not None else None,
        )
        targets = {name: DenseTargets.load(path) for name, path in self.targets.items()}
        kept = prefix_memory(self.device)
        return {name: walk_over(elastic, targets[name], name, self.searched, kept) for name in targets}


def walk_over(
    elastic: ElasticModel,
    targets: DenseTargets,
    text: str,
    searched: int,
    prefix_memory: int,
    state_memory: int = STATE_MEMORY,
) -> PopulationWalk:
    """The walk of one process over the text of `targets`, of which generations are measured on `searched` sequences.

    Nothing comes back to reporting text, so none of its states are kept.
    """
    kept, walked = (prefix_memory, searched) if text == FITNESS else (0, None)
    return PopulationWalk(
        elastic,
        elastic.store,
        targets,
        targets.input_ids,
        state_memory=state_memory,
        prefix_memory=kept,
        walked=walked,
    )


def workers_of(settings: Settings, device: str, placement: Placement, view: View) -> Room | None:
    """How many workers a run has and how they are spread; None where this process does all.

    Raises:
        SettingsError: more workers than GPUs, or a model that is spread over them.
        EngineError: Ray is not installed, or does not answer where it should.
    """
    gpus, machines = torch.cuda.device_count() if device == "cuda" else 0, 1
    if settings.ray_address is not None:
        gpus, machines = cluster.check(settings.ray_address)
        gpus = gpus if device.startswith("cuda") else 0
    elif settings.workers == 1 or (settings.workers == "auto" and (gpus < 2 or not placement.admits_workers)):
        return None
    elif placement.mode == "spread":
        raise SettingsError("a model whose layers are spread over the GPUs leaves none to workers: take --workers 1")
    elif settings.workers == "auto" and not cluster.installed():
        view.warn(f'{gpus} GPUs are here and one is used: pip install "self-pruner[ray]" for a worker on each')
        return None
    else:
        cluster.check(None)
    count = settings.workers if settings.workers != "auto" else gpus or machines
    if device.startswith("cuda") and count > gpus:
        raise SettingsError(f"--workers {count} needs a GPU for each, and there are {gpus}")
    if count > (sequences := settings.sequences(settings.fidelity[-1])):
        view.warn(f"{sequences} of {count} workers are started: generations are measured on {sequences} sequences")
        count = sequences
    return Room(count, -(-count // machines))


def with_workers(settings: Settings, placement: Placement, view: View) -> Placement:
    """The placement with its workers, once: how many they are, and what those on this machine fill.

    Raises:
        SettingsError: as `workers_of`, or there is no room for so many; says how many would fit.
        EngineError: as `workers_of`.
    """
    if placement.workers:
        return placement
    room = workers_of(settings, device_of(settings), placement, view)
    if room is None or settings.ray_address is not None:
        return replace(placement, workers=(room,))
    found = _with(settings, placement, room.workers)
    short = _short(found)
    if short is None:
        return replace(found, workers=(room,))
    if settings.workers == "auto":
        view.warn(f"one process measures: {room.workers} workers would need {short}")
        return replace(placement, workers=(None,))
    fitting = next((n for n in range(room.workers - 1, 1, -1) if _short(_with(settings, placement, n)) is None), 1)
    raise SettingsError(f"--workers {room.workers} needs {short}: take --workers {fitting}")


def _short(placement: Placement) -> str | None:
    """What is needed of a device that has less, in words."""
    for device in placement.machine.devices:
        count = needed(placement.lines, device.name, recalibration=False)
        if device.kind != "disk" and count > device.free:
            return f"{size(count)} of {device.name}, where {size(device.free)} are free"
    return None


def _with(settings: Settings, placement: Placement, count: int) -> Placement:
    """The placement with so many workers: of a GPU each, or all in main memory."""
    memory, gpus = placement.machine.memory.name, placement.machine.gpus[:count]
    lines = [Line(f"Python and dense targets of {count} workers", count * (PROCESS + _targets(placement)), memory)]
    for name, times in [(gpu.name, 1) for gpu in gpus] or [(memory, count)]:
        whose = f"of {times} workers" if times > 1 else "of a worker"
        for line in _lines(settings, placement, name):
            lines.append(replace(line, what=f"{line.what} {whose}", bytes=times * line.bytes))
    return replace(placement, lines=[*placement.lines, *lines])


def _targets(placement: Placement) -> int:
    return sum(line.bytes for line in placement.lines if line.what == TARGETS)


def _lines(settings: Settings, placement: Placement, name: str) -> Iterator[Line]:
    """What one worker fills of the device that it computes on."""
    sizes, machine, streamed = placement.sizes, placement.machine, placement.streamed
    held = AT_WORK if streamed else sizes.shape.n_layers
    yield Line("Weights", sizes.other_weights + held * sizes.layer_bytes, name)
    yield Line("Work space", WORK_SPACE, name)
    # a worker reads its Gram matrices from the cache
    work = work_of(settings, sizes, name, STATE_MEMORY, cpu=not machine.gpus, on_disk=True)
    yield from (line for line in work if line.when == "search")
    yield from remembered(placement.lines, machine, name, settings.compensation == "lstsq", streamed)
