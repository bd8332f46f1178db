"""The commands `latency-table` and `bench-shapes`: how fast shapes are on this machine, before anything is searched."""

from __future__ import annotations

import gc
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from self_pruner.agent.prepare.devices import device_name, device_of, dtype_of, free_memory
from self_pruner.agent.prepare.latency_timer import MEMORY, check_length, engine_name, request_of, timing
from self_pruner.agent.prepare.workbench import budget_for
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.settings import IN_TIME, Settings, SettingsError, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.latency.giant import depth_of, some_of
from self_pruner.tools.latency.measure import LatencyReport, in_turn
from self_pruner.tools.latency.shapes import Sizes, random_model
from self_pruner.tools.latency.table import (
    LatencyTable,
    LatencyTableError,
    Timed,
    check_table,
    measure_table,
    read_table,
)
from self_pruner.tools.models.bundled import cache_dir
from self_pruner.tools.models.outline import outline, skeleton
from self_pruner.tools.models.published import PUBLISHED
from self_pruner.tools.models.source import resolve
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile, uniform
from self_pruner.tools.profiles.space import Space

FORMAT = 2
SPREAD = 3  # profiles of unequal widths beside the uniform one
PAPER = {("llama-2-70b", "49B"): 1.39, ("llama-2-70b", "35B"): 1.70}  # Huang et al., arXiv 2502.14413


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
    view.line(f"{settings.model}, {table.timed}", "bold")
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
    view.line(f"Mean error {sum(abs(one.error) for one in checked) / len(checked):.1%}. Kept in {output or path}")
    return path


def kept_table(settings: Settings, config: Any, space: Space, view: View) -> tuple[Path, LatencyTable]:
    """The table of a space of profiles, from the cache where it was measured, else measured now and kept."""
    path = table_path(settings, config, space)
    if path.is_file():
        try:
            return path, read_table(path)
        except LatencyTableError as error:
            view.warn(f"{error}; it is measured anew")
    path.parent.mkdir(parents=True, exist_ok=True)
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
    return path, table


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
        dtype=dtype_of(settings, device),
        prompt=settings.latency_prompt,
        decode=settings.latency_decode,
        batch=settings.latency_batch,
    )


def bench_shapes(settings: Settings, counts: Sequence[str], layers: int | None, view: View) -> None:
    """Time pruned shapes beside the dense ones: as many layers as the memory holds, or whole models in vLLM."""
    model, device = shape_of(settings), device_of(settings)
    config, dtype = model.config, getattr(torch, dtype_of(settings, device))
    check_length(settings, config)
    budgets = [(text, budget_for(make_settings({**given_by(settings), "params": text}), model)) for text in counts]
    space, whole = budgets[0][1].space, config.num_hidden_layers
    if settings.engine == "vllm":
        if layers is not None:
            raise SettingsError("--layers is for --engine torch: vLLM runs whole models")
        view.line(f"{settings.model}, all {whole} layers, {timed_of(settings, space)}", "bold")
        with timing(settings, config, space) as timer:
            ratios = _speedups(settings, budgets, lambda profile: timer(profile).speedup, view)
        view.line(f"{_promise(ratios)}.")
        return
    timed = _depth(layers, whole, budgets[0][1], dtype.itemsize, device)
    dense = space.sizes(space.dense())[0]

    def weight(one: Sizes) -> float:
        """Parameters of a layer."""
        groups, channels = one
        return groups / space.attention_unit * space.group_params + channels / space.mlp_unit * space.block_params

    def made(sizes: Sequence[Sizes]) -> PreTrainedModel:
        return random_model(config, sizes, dtype=dtype, device=device)

    def beside(sizes: Sequence[Sizes]) -> LatencyReport:
        smaller = made(sizes)
        report = in_turn(dense_model, smaller, *request_of(settings))
        del smaller
        gc.collect()
        return report

    view.line(
        f"{settings.model}: {timed} of {whole} layers of random weights, {timed_of(settings, space)}"
        + ("" if timed == whole else "; the rest is extrapolated"),
        "bold",
    )
    with view.phase("Dense"):
        dense_model = made([dense] * timed)
        half = beside([dense] * max(1, timed // 2))
    decode = settings.latency_decode
    depth = depth_of(
        whole,
        timed,
        half.dense_prefill_ms + decode * half.dense_decode_ms,
        half.prefill_ms + decode * half.decode_ms,
    )
    ratios = _speedups(
        settings,
        budgets,
        lambda profile: depth.speedup(beside(some_of(space.sizes(profile), timed, weight)).speedup),
        view,
    )
    view.line(
        f"{depth.share_of_layers:.0%} of the dense request is spent in the layers, the rest in embedding, norm and "
        f"head, which nothing here prunes; {_promise(ratios)}."
        + (
            ""
            if timed == whole
            else f" Only {timed} of a profile's layers stand for all of them, the more roughly the fewer."
        )
    )


def _speedups(
    settings: Settings, budgets: Sequence[tuple[str, Budget]], speedup: Callable[[Profile], float], view: View
) -> list[float]:
    """Print the speed-ups of some profiles of every budget; returns them as shares of the ratios of parameters."""
    rows, ratios = [], []
    for count, budget in budgets:
        linear = budget.space.params(budget.space.dense()) / budget.target_params
        for name, profile in spread(budget, settings.seed):
            with view.phase(f"{count}, {name}"):
                found = speedup(profile)
            ratios.append(found / linear)
            paper = PAPER.get((settings.model, count))
            rows.append((count, name, f"{found:.2f}", f"{linear:.2f}", "-" if paper is None else f"{paper:.2f}"))
    view.table("Speed-up", ("parameters", "profile", "speed-up", "parameters' ratio", "paper"), rows)
    return ratios


def _promise(ratios: Sequence[float]) -> str:
    """The best and the worst of the shares."""
    return f"the best profile has {max(ratios):.0%} and the worst {min(ratios):.0%} of what its parameters promise"


def given_by(settings: Settings) -> dict[str, Any]:
    """The settings as they were given, without a budget."""
    budgets = ("sparsity", "params", *IN_TIME)
    return {name: value for name, value in settings.model_dump(exclude_unset=True).items() if name not in budgets}


def _depth(wanted: int | None, whole: int, budget: Budget, width: int, device: str) -> int:
    """How many layers are timed: as many as were asked for, or as the memory holds of two models."""
    space = budget.space
    if wanted is not None:
        if not 2 <= wanted <= whole:
            raise SettingsError(f"--layers takes 2 to {whole} of this model, got {wanted}")
        return wanted
    free = free_memory(device)
    layer = width * space.prunable_params(space.dense()) / whole
    fits = int((MEMORY * free / 2 - width * space.fixed_params) // layer)
    if fits < 2:
        raise SettingsError(f"two layers of this model, twice, need {4 * layer / 1e9:.1f} GB: too much here")
    return min(fits, whole)
