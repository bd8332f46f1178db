"""What a run computes on: the device, its number type and its name."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError


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
    return f"{platform.processor() or platform.machine()} {torch.get_num_threads()} threads"
