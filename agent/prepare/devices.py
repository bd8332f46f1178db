"""What a run computes on and where it has room: devices, their number type and name, and disks."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants

from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.settings.stated import names_folder
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.evaluation.main_memory import main_memory
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.models.aliases import BUNDLED
from self_pruner.tools.models.bundled import cache_dir

# Of a disk: the target model, another one that is its brain, what is derived, what a run writes.
Use = Literal["models", "brain", "cache", "runs"]
OTHER_DISK: dict[Use, str] = {
    "models": "HF_HOME=FOLDER",
    "brain": "HF_HOME=FOLDER",
    "cache": "--cache FOLDER",
    "runs": "--runs FOLDER",
}


@dataclass(frozen=True, slots=True)
class Device:
    """Something that a run fills: main memory, the memory of a GPU, or a disk. Sizes are in bytes."""

    name: str  # as torch calls it; of a disk the folder
    kind: Literal["cpu", "cuda", "disk"]
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Machine:
    """All that a run can fill here; what is free is asked once."""

    memory: Device
    gpus: tuple[Device, ...]  # that the run may use, the one it begins on first
    disks: Mapping[Use, Device]

    @property
    def first(self) -> Device:
        """The device that embeddings and head are on."""
        return self.gpus[0] if self.gpus else self.memory

    @property
    def devices(self) -> list[Device]:
        """All of them, each once."""
        return list(dict.fromkeys((*self.gpus, self.memory, *self.disks.values())))


def this_machine(settings: Settings) -> Machine:
    """What there is here for a run of `settings`; of several GPUs all, unless one of them is named.

    Raises:
        SettingsError: a device that this machine does not have.
    """
    device = device_of(settings)
    names = [device] if device.startswith("cuda") else []
    if device == "cuda":
        count = torch.cuda.device_count() if settings.placement in ("auto", "spread") else 1
        names = [f"cuda:{number}" for number in range(count)]
    gpus = tuple(Device(name, "cuda", torch.cuda.mem_get_info(name)[1], free_memory(name)) for name in names)
    memory = Device("memory", "cpu", main_memory().total, free_memory("cpu"))
    cache = settings.cache or cache_dir()
    models, brain = (
        Path(constants.HF_HUB_CACHE) if name is not None and _of_hub(name) else cache
        for name in (settings.model, settings.other_brain)
    )
    folders: dict[Use, Path] = {"models": models, "brain": brain, "cache": cache, "runs": settings.runs}
    found: dict[int, Device] = {}  # by file system
    disks: dict[Use, Device] = {}
    for use, folder in folders.items():
        place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
        usage = shutil.disk_usage(place)
        disk = Device(f"the disk of {folder}", "disk", usage.total, usage.free)
        disks[use] = found.setdefault(place.stat().st_dev, disk)
    return Machine(memory, gpus, disks)


def _of_hub(model: str) -> bool:
    """Whether a model is fetched from the hub: the bundled one goes to the cache, a folder stays where it is."""
    return model.lower() != BUNDLED and not names_folder(model)


def spread(n_layers: int, layer_bytes: int, room: Mapping[Device, int]) -> dict[str, int]:
    """How many of equal layers each device gets, by name, so that the least of its bytes that is left is the most."""
    left, layers = dict(room), dict.fromkeys(room, 0)
    for _ in range(n_layers):
        most = max(left, key=lambda device: left[device])
        left[most] -= layer_bytes
        layers[most] += 1
    return {device.name: count for device, count in layers.items()}


def device_of(settings: Settings) -> str:
    """The device a run computes on.

    Raises:
        SettingsError: a device that this machine does not have.
    """
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if settings.device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise SettingsError(f"--device {settings.device}: no GPU can be used here, only cpu")
        index = int(settings.device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            names = ", ".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
            raise SettingsError(f"--device {settings.device}: there is none of that number here, only {names}")
    return settings.device


def dtype_of(settings: Settings, device: str) -> str:
    """The number type of the weights on `device`: by default bfloat16 where the device multiplies it natively."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if device != "cpu" or multiplies_bfloat16(torch.cpu.get_capabilities()) else "float32"


def multiplies_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor with these capabilities has matrix or dot products of bfloat16; others only emulate them."""
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def device_name(device: str) -> str:
    """The device as latencies are remembered under: the GPU's name, or the processor's and the number of threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()} {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's name as Linux knows it; elsewhere what Python knows of it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
