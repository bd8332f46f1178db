"""A target model without its weights: its shapes, its tokenizer, and how much of it is still to be fetched.

A config says how large everything will be, so what a run costs, and whether its target can be reached at all, is known
before a single weight is fetched or read. The model is built on the meta device, where tensors have shapes and no
numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from self_pruner.tools.models import checkpoint
from self_pruner.tools.models.aliases import PUBLISHED
from self_pruner.tools.models.bundled import MODEL_BUNDLE, MODEL_CONFIG, model_folder, to_fetch
from self_pruner.tools.models.families import Family
from self_pruner.tools.models.hub import fetch_outline, is_cached
from self_pruner.tools.models.source import ModelSource, load_tokenizer, skeleton


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """What is known of a dense target model before its weights are."""

    name: str  # as in file names and reports
    family: Family
    model: Any  # a transformers causal LM of the family's own class on the meta device
    tokenizer: Any  # its transformers tokenizer; None where it was not asked for or comes with the weights
    to_fetch: int  # bytes that loading the model will fetch first; of published shapes two a parameter
    has_weights: bool  # False for a folder that holds none yet


def outline(
    source: ModelSource,
    *,
    tokenizer: bool = True,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    published: bool = False,
) -> ModelOutline:
    """The outline of a model: of one on the hub config and tokenizer are fetched, of the bundled one nothing is.

    Args:
        source: what `resolve` returned.
        tokenizer: load the tokenizer too.
        trust_remote_code: allow a tokenizer that brings its own Python code.
        cache: where the bundled model is kept; None for the default.
        published: do not ask the hub for a model that was never fetched and whose shapes are published.

    Raises:
        SelfPrunerError: what `checkpoint.check_config` and `fetch_outline` raise; ModelError for a config
            that no model can be made from.
    """
    missing, folder, known_fields = 0, model_folder(cache), MODEL_CONFIG
    by_alias = published and source.kind == "hub" and source.revision is None and source.name in PUBLISHED
    if source.kind == "bundled":
        missing = to_fetch(MODEL_BUNDLE, cache)
    elif by_alias and not is_cached(source.location, "config.json", None):
        folder, known_fields = Path(os.devnull), PUBLISHED[source.name]
    elif source.kind == "hub":
        folder, missing = fetch_outline(source.location, source.revision, tokenizer, trust_remote_code)
    else:
        folder = Path(source.location)
    known = folder.is_dir()
    fields = checkpoint.read_config(folder / "config.json") if known else known_fields
    family = checkpoint.check_config(fields)
    model = skeleton(fields, source.name)
    if source.kind == "hub" and not known:
        missing = 2 * sum(parameter.numel() for parameter in model.parameters())
    return ModelOutline(
        name=source.name,
        family=family,
        model=model,
        tokenizer=load_tokenizer(folder, trust_remote_code) if tokenizer and known else None,
        to_fetch=missing,
        has_weights=source.kind != "folder" or checkpoint.has_weights(folder),
    )
