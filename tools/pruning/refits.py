"""The output projections of a recalibrated profile, which are all that recalibration changes.

They are as large as the same tensors of the exported checkpoint; the moments that they are made from are many times
larger and good for nothing else.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from self_pruner.memory.errors import KeptFileError
from self_pruner.memory.partials import partial_of
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.pruning.compensation import KeptRefits
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import OUTPUTS

FORMAT = "self-pruner refits 1"


@dataclass(frozen=True, slots=True)
class Refits:
    """The weights of every output projection of one profile."""

    weights: Mapping[tuple[int, Part], Tensor]  # [out, channels kept] by layer and part, on the CPU
    warnings: tuple[str, ...] = ()  # of the refitting

    @classmethod
    def of(cls, elastic: ElasticModel, profile: Profile, calibration: Calibration) -> Refits:
        """The refits of `profile` by `calibration`, which `recalibrate` made of `elastic` at this profile.

        Raises:
            ModelError: `calibration` is no recalibration of a model of this shape.
            MeasurementError: a Gram matrix cannot be factored.
        """
        other = elastic.recalibrated(calibration)
        weights = {
            (layer, part): other.block_weights(layer, part, width)[f"{OUTPUTS[part]}.weight"].cpu()
            for part in PARTS
            for layer, width in enumerate(profile.widths(part))
        }
        return cls(weights, tuple(other.warnings))

    def on(self, elastic: ElasticModel) -> ElasticModel:
        """`elastic` with these refits, for their profile only; the two share weights, store and orders."""
        other = copy.copy(elastic)
        other.compensator = KeptRefits(self.weights, elastic.compensator.memo.limit)
        other.compensator.warnings += self.warnings
        return other

    def save(self, path: Path, made_for: str) -> None:
        """Writes a safetensors file, aside first and then renamed; `made_for` says what they belong to.

        Raises:
            OSError: it cannot be written; nothing is left of it.
            SafetensorError: the same, as the library says it.
        """
        tensors = {f"{part}.{layer}": weight.contiguous() for (layer, part), weight in self.weights.items()}
        metadata = {"format": FORMAT, "made_for": made_for, "warnings": json.dumps(self.warnings)}
        aside = partial_of(path)
        aside.unlink(missing_ok=True)  # a link by that name would be written through
        try:
            save_file(tensors, aside, metadata)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, made_for: str, elastic: ElasticModel, profile: Profile) -> Refits | None:
        """What `save` wrote; None where there is no file, or one that was made for something else.

        Raises:
            KeptFileError: it is damaged, or does not fit the model.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if (metadata.get("format"), metadata.get("made_for")) != (FORMAT, made_for):
                    return None
                weights = {
                    (layer, part): file.get_tensor(f"{part}.{layer}")
                    for part in PARTS
                    for layer in range(elastic.space.n_layers)
                }
                warnings = tuple(json.loads(metadata["warnings"]))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise KeptFileError(f"{str(path)!r} is damaged ({error})") from error
        hidden = elastic.model.config.hidden_size
        for (layer, part), weight in weights.items():
            if list(weight.shape) != [hidden, elastic.channels(part, profile.widths(part)[layer])]:
                raise KeptFileError(f"{str(path)!r} does not fit the model")
        return cls(weights, warnings)
