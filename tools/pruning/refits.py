"""A recalibration in a file: what a run keeps until its checkpoint is written.

The refits are as large as the same tensors of the exported checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from self_pruner.memory.errors import KeptFileError
from self_pruner.memory.partials import partial_of
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.pruning.compensation import Recalibration
from self_pruner.tools.pruning.elastic import ElasticModel

FORMAT = "self-pruner refits 1"


def save_refits(recalibration: Recalibration, path: Path, made_for: str) -> None:
    """Writes a safetensors file, aside first and then renamed; `made_for` says what it belongs to.

    Raises:
        OSError: it cannot be written; nothing is left of it.
        SafetensorError: the same, as the library says it.
    """
    tensors = {f"{part}.{layer}": refit.contiguous() for (layer, part), refit in recalibration.refits.items()}
    aside = partial_of(path)
    aside.unlink(missing_ok=True)  # a link by that name would be written through
    try:
        save_file(tensors, aside, {"format": FORMAT, "made_for": made_for})
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_refits(path: Path, made_for: str, elastic: ElasticModel, profile: Profile) -> Recalibration | None:
    """What `save_refits` wrote; None where there is no file, or one that was made for something else.

    Raises:
        KeptFileError: it is damaged, or does not fit the model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("made_for")) != (FORMAT, made_for):
                return None
            refits = {
                (layer, part): file.get_tensor(f"{part}.{layer}")
                for part in PARTS
                for layer in range(elastic.space.n_layers)
            }
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise KeptFileError(f"{str(path)!r} is damaged ({error})") from error
    hidden = elastic.model.config.hidden_size
    for (layer, part), refit in refits.items():
        channels = elastic.channels(part, profile.widths(part)[layer])
        if list(refit.shape) != [hidden, channels] or refit.dtype != elastic.dtype:
            raise KeptFileError(f"{str(path)!r} does not fit the model")
    return Recalibration(profile, refits)
