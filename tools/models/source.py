"""Where a target model comes from, and how it is loaded.

A name is one of four things: the bundled model, an alias, an existing folder, or a hub id. `resolve` decides which and
checks everything that can be checked before weights are read; `load` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tools.models.families import Family


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A dense target model in eval mode, without gradients, with its tokenizer."""

    model: Any  # a transformers causal LM
    tokenizer: Any  # its transformers tokenizer
    name: str  # as in file names and reports
    family: Family
    fingerprint: str  # hex digest of config and weights, equal for equal checkpoints
