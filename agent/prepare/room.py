"""Memory and disk that a run takes, asked for before it does."""

from __future__ import annotations

import shutil
from pathlib import Path

from self_pruner.memory.errors import SettingsError
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.models.families import geometry
from self_pruner.tools.models.outline import ModelOutline
from self_pruner.tools.models.source import LoadedModel
from self_pruner.tools.text.quantities import size

PREFIX_MEMORY = 1 << 29


def refit_memory(device: str, streamed: bool = False) -> int:
    """Bytes that remembered refits may take: half of what the loaded model leaves of a GPU, else 1 GiB.

    Without a GPU a streamed model gets a quarter of that: of a large one a GiB would hold few of the refits that a pass
    asks for.
    """
    if device.startswith("cuda"):
        return free_memory(device) // 2
    return 1 << 28 if streamed else 1 << 30


def prefix_memory(device: str) -> int:
    """Bytes of hidden states that a search keeps for its next generation at most.

    Half a GiB, or a quarter of what the loaded model leaves of a GPU, whose models have the larger states.
    """
    return max(PREFIX_MEMORY, free_memory(device) // 4 if device.startswith("cuda") else 0)


def check_room(loaded: LoadedModel | ModelOutline, cache: Path, in_memory: bool = True) -> None:
    """Refuse a calibration whose Gram matrices have no room on the disk or, with `in_memory`, in memory.

    Raises:
        SettingsError: says how much memory or disk is needed and how much there is.
    """
    needed = geometry(loaded.model.config).gram_bytes
    disk = next(folder for folder in (cache, *cache.resolve().parents) if folder.is_dir())
    rooms = [("memory", free_memory("cpu"))] if in_memory else []
    for what, free in (*rooms, (f"disk in {cache}", shutil.disk_usage(disk).free)):
        if needed > free:
            raise SettingsError(
                f"the calibration of {loaded.name} needs {size(needed)} of {what} for its Gram matrices, and "
                f"{size(free)} are free"
            )
