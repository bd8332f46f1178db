"""Several workers: how many a run has, and what each makes its walks from.

A worker loads the checkpoint from its path and the calibration and dense targets from the cache, so what goes over the
wire is short. It reorders units as the run did, and is refused where the checkpoint is another.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from self_pruner.agent.prepare.bill import STATE_MEMORY, prefix_memory, refit_memory
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
from self_pruner.tools.workbench import FITNESS


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
