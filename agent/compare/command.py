"""From the command line to a comparison's folder: a new one, or an old one that goes on and grows."""

from __future__ import annotations

import re
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any

from self_pruner.agent.compare.adopted import adopt, read_finished
from self_pruner.agent.compare.bound import check_finished
from self_pruner.agent.compare.comparison import DEFAULTS, Comparison, check, is_comparison
from self_pruner.agent.compare.plan import PlanError, parse_arms, parse_seeds, parse_sparsities
from self_pruner.agent.settings import make_settings
from self_pruner.agent.view import View


def begin(options: Namespace, given: dict[str, Any], view: View) -> Comparison:
    """The comparison that the options ask for, checked, with its plan written.

    Raises:
        SelfPrunerError: an option is wrong or contradicts what is in `--into` or `--from`; nothing is written then.
    """
    settings = make_settings({**DEFAULTS, **given}).anchored()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(settings.model).name)
    path = options.into or settings.runs / f"compare-{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    parse_arms(options.arms)
    comparison = Comparison(
        path.resolve(), options.arms, parse_sparsities(options.sparsities), parse_seeds(options.seeds), settings
    )
    if is_comparison(path):
        comparison = Comparison.open(path.resolve()).joined(comparison)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise PlanError(f"--into {path} is neither empty nor a comparison")
    finished = read_finished(comparison, options.finished)
    check_finished(comparison.path, options.finished, finished, view)
    check(comparison)
    comparison.save()
    adopt(comparison, finished)
    return comparison
