"""What can be refused before any weights are fetched or read: everything that follows from settings and config alone.

A run and a dry run both begin here, so a mistake is the same sentence in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from self_pruner.agent.prepare.budget import budget_for
from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.prepare.texts import Wanted, wanted_texts
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.database import connect
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.models.outline import ModelOutline, outline
from self_pruner.tools.models.source import pinned, resolve
from self_pruner.tools.profiles.budget import Budget


@dataclass(frozen=True, slots=True)
class Target:
    """What a run is about, known without a weight."""

    outline: ModelOutline
    device: str
    dtype: str
    budget: Budget
    texts: list[Wanted]


def at_commit(settings: Settings) -> Settings:
    """The settings with the commit that the revision of a hub model stands for now, which a resumed run goes on with.

    Raises:
        SelfPrunerError: an unknown model, or one that the hub does not have.
    """
    source = pinned(resolve(settings.model, settings.revision, weights=False))
    return settings if source.commit is None else settings.model_copy(update={"revision": source.commit})


def check_target(settings: Settings, *, weights: bool = True) -> Target:
    """The target model's outline and its budget; refuses what no weights could mend.

    Args:
        settings: the settings of the run.
        weights: refuse a folder without weights; else the tokenizer is wanted instead, to say what a run will cost,
            and the hub is not asked for shapes that are published.

    Raises:
        SelfPrunerError: an unknown or unsupported model, a device that is not there, an MLP unit that does not fit, a
            sparsity or parameter count that no profile reaches, a length beyond the model's context.
    """
    source = resolve(settings.model, settings.revision, weights)
    device = device_of(settings)
    known = outline(
        source,
        tokenizer=not weights,
        trust_remote_code=settings.trust_remote_code,
        cache=settings.cache,
        published=not weights,
    )
    budget = budget_for(settings, known.model)
    texts = wanted_texts(settings, known.model.config.max_position_embeddings, device)
    return Target(known, device, dtype_of(settings, device), budget, texts)


def check_memory(path: Path) -> None:
    """Find a file that is no memory now, not after the calibration."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--memory {path}: its folder cannot be made: {error.strerror}") from error
    connect(path).close()
