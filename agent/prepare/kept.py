"""What follows from model and text alone and is expensive: kept in the cache by a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import Tensor

from self_pruner.agent.view import View
from self_pruner.memory.errors import KeptFileError, MeasurementError, SettingsError
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.text.quantities import size

Kept = TypeVar("Kept", Calibration, DenseTargets)


def keep(path: Path, kind: type[Kept], make: Callable[[], Kept], view: View) -> Kept:
    """What the cache holds at `path`, or what `make` makes, kept there for the next time.

    A damaged file is made anew, and a cache that can't be written costs only time; both are said.
    """
    if path.exists():
        try:
            return kind.load(path)
        except (KeptFileError, MeasurementError) as error:
            view.warn(f"{error}; it is made anew")
    made = make()
    with suppress(KeptFileError, MeasurementError):  # damaged: said above
        if path.exists() and kind.load(path) is not None:  # another process was faster: its file may be in use
            return made
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)
    except (OSError, SafetensorError) as error:
        view.warn(f"cannot keep {path.name} in {path.parent} for the next run: {error}")
    return made


def kept_calibration(cache: Path, count: int) -> bool:
    """Whether a calibration of so many bytes is in the cache; of which model, a run finds out when it has the weights.

    It then asks for room again.
    """
    found = (cache / "calibration").glob("*.safetensors")
    return any(count <= path.stat().st_size < 1.1 * count + (1 << 20) for path in found)


def digest(ids: Tensor) -> str:
    """A digest of token ids and their shape."""
    return hashlib.sha256(str(tuple(ids.shape)).encode() + ids.cpu().numpy().tobytes()).hexdigest()[:16]


def named(key: dict[str, Any]) -> str:
    """A file name that stands for everything in `key`."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]


def check_disk(name: str, count: int, cache: Path) -> None:
    """Refuse a calibration whose Gram matrices have no room on the disk.

    Raises:
        SettingsError: says how much is needed and how much there is.
    """
    disk = next(folder for folder in (cache, *cache.resolve().parents) if folder.is_dir())
    if count > (free := shutil.disk_usage(disk).free):
        raise SettingsError(
            f"the calibration of {name} needs {size(count)} of disk in {cache} for its Gram matrices, and {size(free)} "
            "are free: name a folder on another disk with --cache"
        )
