"""Where a run's decoder layers are: in memory, or read from the checkpoint's files each time they are needed.

Decided from the config, before a weight is fetched or read, and anew by every process that carries a run out: a resumed
run may find less memory than it had. Figures do not depend on it (tools/pruning/streamed.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.prepare.room import PREFIX_MEMORY, refit_memory
from self_pruner.agent.prepare.run import Run
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.models.families import geometry
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.text.quantities import size

AT_WORK = 3  # layers that exist at a time where they are streamed: one in use, one on its way, one being converted


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on the device that computes."""

    weights: int  # all of them
    streamed_weights: int  # embedding, head and the layers at work
    beside: int  # remembered refits and states, and the matrices of one refit


def need_of(target: Target) -> Need:
    """What a target model takes."""
    itemsize = getattr(torch, target.dtype).itemsize
    model = target.outline.model
    params = sum(parameter.numel() for parameter in model.parameters())
    layers = [sum(parameter.numel() for parameter in layer.parameters()) for layer in model.get_decoder().layers]
    streamed = params - sum(layers) + AT_WORK * max(layers)
    # of a GPU, remembered refits take a share of what is left
    remembered = PREFIX_MEMORY + (0 if target.device.startswith("cuda") else refit_memory(target.device))
    return Need(itemsize * params, itemsize * streamed, remembered + geometry(model.config).refit_bytes)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the layers will be, and why."""

    streamed: bool
    need: Need
    free: int  # bytes to be had on the device
    fault: str | None = None  # why it cannot be, in a sentence

    @property
    def bytes(self) -> int:
        """Bytes of the weights that are on the device at a time."""
        return self.need.streamed_weights if self.streamed else self.need.weights


def place(settings: Settings, target: Target) -> Placement:
    """Decide it from what a target model takes and what is free now; a placement that cannot be has a `fault`."""
    need, free = need_of(target), free_memory(target.device)
    fits = need.weights + need.beside <= free
    least = need.streamed_weights + need.beside
    fault = None
    streamed = settings.placement == "streamed" or (settings.placement == "auto" and not fits)
    if not streamed and need.weights > free:
        fault = (
            f"--placement resident needs {size(need.weights)} on {target.device} for the weights of "
            f"{target.outline.name}, and {size(free)} are free; --placement streamed needs {size(least)}"
        )
    elif streamed and least > free:
        fault = (
            f"{target.outline.name} needs {size(least)} on {target.device} even with its layers streamed, and "
            f"{size(free)} are free: free some, or choose another --device or --dtype"
        )
    elif streamed and settings.in_time and settings.engine == "torch":
        fault = (
            "a budget in time needs a model in memory, or --engine vllm: this one's layers are streamed from its files"
        )
    return Placement(streamed, need, free, fault)


def placed(settings: Settings, target: Target, view: View) -> Settings:
    """The settings, with `placement` streamed where that is decided, which is said.

    Raises:
        SettingsError: the model fits neither way, or not the way that was asked for, or a streamed run is to time
            models in this process.
    """
    found = place(settings, target)
    if found.fault:
        raise SettingsError(found.fault)
    if not found.streamed:
        return settings
    update: dict[str, object] = {"placement": "streamed"}
    why = untimed = ""
    if settings.placement == "auto":
        why = f", for {size(found.need.weights)} do not fit into {size(found.free)}"
    if settings.benchmarks and settings.engine == "torch":
        update["benchmarks"] = 0
        untimed = "; latency is not measured, for it would be the disk's"
    view.warn(f"the layers of {target.outline.name} are streamed from its files{why}{untimed}")
    return settings.model_copy(update=update)


def say_what_was_read(run: Run) -> None:
    """What streaming cost, where layers were streamed; their files are read no more."""
    if isinstance(streamed := run.bench.elastic.store, StreamedLayers):
        run.view.line(f"Streamed: every layer {streamed.passes:.0f} times, {size(streamed.bytes_read)} read.")
        streamed.close()
