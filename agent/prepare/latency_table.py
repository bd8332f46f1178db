"""The command `latency-table`: how fast every width is on this machine, before anything is searched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from self_pruner.agent.prepare.checks import budget_for
from self_pruner.agent.prepare.devices import device_name, device_of, dtype_of
from self_pruner.agent.prepare.latency_timer import check_length, engine_name, timing
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import KeptFileError, SettingsError
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.latency.in_llama_cpp import TYPE
from self_pruner.tools.latency.table import LatencyTable, Timed, check_table, measure_table, read_table
from self_pruner.tools.models.aliases import PUBLISHED
from self_pruner.tools.models.bundled import cache_dir
from self_pruner.tools.models.outline import outline
from self_pruner.tools.models.source import resolve, skeleton
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile, uniform
from self_pruner.tools.profiles.space import Space

FORMAT = 2
SPREAD = 3  # profiles of unequal widths beside the uniform one


def shape_of(settings: Settings) -> Any:
    """The target model without weights: of published shapes where they are known, so that no hub is asked."""
    if settings.model in PUBLISHED:
        return skeleton(PUBLISHED[settings.model], settings.model)
    source = resolve(settings.model, settings.revision, weights=False)
    return outline(source, tokenizer=False, cache=settings.cache).model


def spread(budget: Budget, seed: int) -> list[tuple[str, Profile]]:
    """The uniform profile of a budget and some of unequal widths."""
    rng = random.Random(seed)
    return [("uniform", uniform(budget)), *((f"unequal {n + 1}", random_profile(budget, rng)) for n in range(SPREAD))]


def latency_table(settings: Settings, output: Path | None, view: View) -> Path:
    """Measure or read the table of the target model's shapes here, and say how well it predicts; returns its file.

    Args:
        settings: the model, the device, the engine and the request.
        output: where a copy of it is written for searches elsewhere.
        view: where it is shown.
    """
    model = shape_of(settings)
    budget = budget_for(settings.without_time(), model)
    check_length(settings, model.config)
    path, table = kept_table(settings, model.config, budget.space, view)
    view.line(f"{settings.model}, {table.setting}", "bold")
    view.table(
        "What a place takes beyond a whole one",
        ("part", "units", "prefill ms", "decode ms"),
        [
            (part, str(width), f"{one.prefill:+.3f}", f"{one.decode:+.4f}")
            for part, row in table.rows.items()
            for width, one in sorted(row.items())
        ],
    )
    view.line(f"Dense: prefill {table.dense.prefill:.1f} ms, decode {table.dense.decode:.2f} ms a token.")
    named = spread(budget, settings.seed)
    with view.phase("Checking it"), timing(settings, model.config, budget.space) as timer:
        checked = check_table(table, named, timer)
    view.table(
        "Whole profiles",
        (f"profile at {budget.sparsity:.0%}", "predicted speed-up", "measured", "error"),
        [(one.name, f"{one.predicted:.3f}", f"{one.measured:.3f}", f"{one.error:+.1%}") for one in checked],
    )
    if output is not None:
        atomic_write(output, path.read_text(encoding="utf-8"))
    error = sum(abs(one.error) for one in checked) / len(checked)
    view.line(f"Mean error {error:.1%}. Kept in {output or path}", whole=True)
    return path


def kept_table(settings: Settings, config: Any, space: Space, view: View) -> tuple[Path, LatencyTable]:
    """The table of a space of profiles, from the cache where it was measured, else measured now and kept."""
    path = table_path(settings, config, space)
    table = _kept(path, view)
    if table is None:
        _make(path.parent)
        with view.phase("Latency table") as progress, timing(settings, config, space) as timer:
            table = measure_table(
                space,
                timed_of(settings, space),
                timer,
                progress,
                foreign=settings.engine == "vllm",
                notes=path.with_suffix(".lines"),
            )
        atomic_write(path, json.dumps(table.to_json(), indent=1) + "\n")
    if table.fault:
        view.warn(f"In the latency table, {table.fault}")
    return path, table


def _make(folder: Path) -> None:
    """The folder of the tables, found to be of no use now and not after the measurement.

    Raises:
        SettingsError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = error.strerror
    if reason:
        raise SettingsError(f"no latency table can be kept in {folder}: {reason}; name another folder with --cache")


def _kept(path: Path, view: View) -> LatencyTable | None:
    """The table in a file; None where there is none that can be read."""
    if path.is_file():
        try:
            return read_table(path)
        except KeptFileError as error:
            view.warn(f"{error}; it is measured anew")
    return None


def table_path(settings: Settings, config: Any, space: Space) -> Path:
    """Where the table of a space of profiles is kept."""
    described = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
    timed = asdict(timed_of(settings, space))
    key = {"format": FORMAT, "config": described, "timed": timed, "repeats": settings.latency_repeats}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return (settings.cache or cache_dir()) / "latency" / f"{digest}.json"


def timed_of(settings: Settings, space: Space) -> Timed:
    """What a table measured now would be of."""
    device = device_of(settings)
    return Timed(
        model=settings.model,
        layers=space.n_layers,
        units={part: space.units(part) for part in PARTS},
        mlp_unit=space.mlp_unit,
        attention_unit=space.attention_unit,
        engine=engine_name(settings),
        device=device_name(device),
        dtype=TYPE if settings.engine == "llama-cpp" else dtype_of(settings, device),
        prompt=settings.latency_prompt,
        decode=settings.latency_decode,
        batch=settings.latency_batch,
        tensor_parallel=settings.tensor_parallel,
        bias=settings.compensation == "bias",
    )
