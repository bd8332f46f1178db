"""What an exported folder says of itself to programs: the model it was cut from and what of it is left.

The model card says the same to people. With this file beside the weights, the folder alone is enough to measure it
again beside its dense model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from self_pruner.memory.errors import ExportError
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.models.plain_file import read_json
from self_pruner.tools.profiles.space import Space

LARGEST = 4 << 20  # bytes of the file
PROVENANCE_FILE = "self_pruner.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a checkpoint comes from."""

    format: Literal[1] = 1
    model: str | None  # the dense model, as --model takes it; None for a folder of the machine that made this
    revision: str | None = None
    base_model: str  # its name for people: a hub id where there is one
    fingerprint: str  # of its weights
    dense_parameters: int
    parameters: int
    sequence_length: int | None = None  # of the reported perplexities, tokens
    groups: tuple[int, ...]  # KV groups of every layer
    channels: tuple[int, ...]  # MLP channels of every layer


def provenance_of(card: CardFacts, profile: Profile, space: Space) -> Provenance:
    """What is known at the export."""
    length = card.settings.get("sequence_length")
    revision = card.settings.get("revision")
    sizes = space.sizes(profile)
    return Provenance(
        model=None if card.local else str(card.settings.get("model", card.base_model)),
        revision=None if revision is None else str(revision),
        base_model=card.base_model,
        fingerprint=card.fingerprint,
        dense_parameters=space.dense_params,
        parameters=space.params(profile),
        sequence_length=length if isinstance(length, int) else None,
        groups=tuple(groups for groups, _ in sizes),
        channels=tuple(channels for _, channels in sizes),
    )


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write the file in `folder`."""
    text = json.dumps(asdict(provenance), indent=1, ensure_ascii=False)
    (folder / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Provenance | None:
    """What the folder says, None where it has no such file.

    Raises:
        ExportError: it is damaged, or of another version.
    """
    from pydantic import TypeAdapter, ValidationError  # what writes the file does without

    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Provenance).validate_python(read_json(path, LARGEST))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ExportError(f"{path} is not what an export writes: {place}: {fault['msg']}") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
