"""Export, reload in a new process, compare: only a folder that passes gets its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from self_pruner.memory.errors import ExportError
from self_pruner.memory.partials import scratch
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.checkpoint import export
from self_pruner.tools.export.naming import UNFINISHED, check_room, flush, new_folder, set_aside, system_reason
from self_pruner.tools.export.serving import Serving
from self_pruner.tools.export.verify import VerificationError, record_expected, verify
from self_pruner.tools.models.checkpoint import digest_of
from self_pruner.tools.models.foreign_code import refuse_foreign
from self_pruner.tools.pruning.streamed import StreamedLayers

if TYPE_CHECKING:
    from torch import Tensor

    from self_pruner.tools.pruning.elastic import ElasticModel

BESIDE_WEIGHTS = 1 << 30  # bytes that a new process takes beside them: libraries, states, logits


def publish(
    elastic: ElasticModel,
    profile: Profile,
    tokenizer: Any,
    folder: Path,
    card: CardFacts,
    input_ids: Tensor,
    *,
    serving: Serving = "transformers",
    replace: bool = False,
    trusted: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Export `profile` to `folder` and verify it on `input_ids` [batch, length >= 2].

    A folder that fails, or that cannot be verified, is kept as `<folder>.failed`, so nobody takes it for the result.

    Args:
        elastic: The target model, reordered; read only.
        profile: Units kept in every layer.
        tokenizer: Its tokenizer.
        folder: Where to; must not exist yet unless `replace`.
        card: What the model card states.
        input_ids: Token ids of a few sequences; their logits are held in memory, [batch, length, vocab].
        serving: What will serve it.
        replace: Put the new folder in the place of an existing one.
        trusted: Whether the user trusts the tokenizer's own code, which is then part of the folder.
        progress: Called with (bytes of weights written, bytes of weights in all).

    Returns:
        The largest difference of a logit between the folder and the elastic model.

    Raises:
        ExportError: The folder could not be written.
        VerificationError: The folder does not load or computes something else.
    """
    final = Path(os.path.abspath(folder))
    found: list[float] = []

    def check(partial: Path) -> None:
        try:
            with scratch("expected") as temporary:
                expected = record_expected(elastic, profile, input_ids, Path(temporary) / "expected.safetensors")
                device, layers = where_to_verify(elastic, partial)
                found.append(verify(partial, expected, device=device, layers=layers, trusted=trusted))
        except VerificationError as error:
            kept = set_aside(partial, final)
            raise VerificationError(f"{error} It was renamed to {str(kept)!r}.") from error
        except (OSError, SafetensorError) as error:
            kept = set_aside(partial, final)
            raise ExportError(
                f"The checkpoint was written to {str(kept)!r} but could not be verified: {system_reason(error)}."
            ) from error

    export(elastic, profile, tokenizer, final, card, serving=serving, replace=replace, progress=progress, check=check)
    return found[0]


def where_to_verify(elastic: ElasticModel, folder: Path) -> tuple[str, str]:
    """The device that runs the checkpoint in `folder`, as it runs `elastic`; and the same for its layers, or "disk".

    They stay on the disk where those of `elastic` do, and where there is no room for them beside `elastic`.
    """
    device = str(elastic.device)
    needed = sum(path.stat().st_size for path in folder.glob("*.safetensors")) + BESIDE_WEIGHTS
    streamed = isinstance(elastic.store, StreamedLayers) or needed > free_memory(device)
    return device, "disk" if streamed else device


def copy_checkpoint(source: Path, folder: Path, *, trusted: bool = False) -> None:
    """Copy a verified checkpoint to `folder`, which gets its name once it reads back as the same.

    Args:
        source: The checkpoint.
        folder: Where to; must not exist yet.
        trusted: Whether the user trusts the tokenizer's own code.

    Raises:
        ExportError: `folder` exists already, or could not be written.
        ForeignCodeError: `source` brings code that no export writes.
        SelfPrunerError: what `checkpoint.digest_of` raises of a `source` that is not whole.
    """
    refuse_foreign(source, trusted)
    meant = digest_of(source)
    folder = Path(os.path.abspath(folder))
    with new_folder(folder) as partial:
        check_room(folder, sum(path.stat().st_size for path in source.rglob("*") if path.is_file()))
        shutil.copytree(source, partial, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns(UNFINISHED))
        flush(partial)
        if digest_of(partial) != meant:
            raise ExportError(f"The copy of {str(source)!r} reads back as something else.")
