"""How much faster are pruned shapes of a model, also of one too large for the memory at hand?

Random weights of uniform and of unequal profiles run beside the dense shapes, in turn. A request takes a fixed time
(embedding, norm, head) and that of its layers, which are alike in the dense model: two depths of it give both, and a
pruned model of the deeper one, timed in turn with it, gives what its layers take.

    python -m benchmarks.shapes --model llama-2-70b --params 49B,35B
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from self_pruner.agent.prepare.checks import budget_for
from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.prepare.latency_table import shape_of, spread, timed_of
from self_pruner.agent.prepare.latency_timer import MEMORY, check_length, request_of, timing
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SelfPrunerError, SettingsError
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.latency.measure import LatencyReport, in_turn
from self_pruner.tools.latency.shapes import Sizes, random_model, some_of
from self_pruner.tools.profiles.budget import Budget

PAPER = {("llama-2-70b", "49B"): 1.39, ("llama-2-70b", "35B"): 1.70}  # Huang et al., arXiv 2502.14413

# Times a request on layers of these sizes and on dense ones of the same number, in turn.
Pair = Callable[[Sequence[Sizes]], LatencyReport]


@dataclass(frozen=True, slots=True)
class Depth:
    """What the dense model takes, in milliseconds: all layers and the rest."""

    layers: int  # of the whole model
    timed: int  # layers that were timed
    fixed: float
    layer: float

    @property
    def whole(self) -> float:
        """The dense model."""
        return self.fixed + self.layers * self.layer

    @property
    def share_of_layers(self) -> float:
        """How much of it pruning can reach."""
        return 1.0 - self.fixed / self.whole

    def speedup(self, ratio: float) -> float:
        """Of the whole model, where `ratio` is that of the timed layers and the rest."""
        timed = self.fixed + self.timed * self.layer
        layer = max(timed / ratio - self.fixed, 0.0) / self.timed
        return self.whole / (self.fixed + self.layers * layer)


def depth_of(layers: int, timed: int, deep: float, shallow: float) -> Depth:
    """From the milliseconds of `timed` dense layers and of half as many; all layers need no second depth.

    Args:
        layers: of the whole model.
        timed: of the deeper one.
        deep: milliseconds of that.
        shallow: milliseconds of half as many layers.
    """
    layer = max((deep - shallow) / (timed - timed // 2), 0.0)
    return Depth(layers, timed, max(deep - timed * layer, 0.0), layer)


def bench(given: dict[str, Any], counts: Sequence[str], layers: int | None, view: View) -> None:
    """Time pruned shapes beside the dense ones: as many layers as the memory holds, or whole models in another engine.

    Args:
        given: settings: the model, the device, the engine and the request.
        counts: parameters to keep.
        layers: that are timed; None for as many as the memory holds.
        view: where it is shown.
    """
    settings = make_settings(given)
    model, device = shape_of(settings), device_of(settings)
    config, dtype = model.config, getattr(torch, dtype_of(settings, device))
    check_length(settings, config)
    budgets = [(text, budget_for(make_settings({**given, "params": text}), model)) for text in counts]
    space, whole = budgets[0][1].space, config.num_hidden_layers
    if settings.engine != "torch":
        if layers is not None:
            raise SettingsError(f"--layers is for --engine torch: {settings.engine} runs whole models")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", required=True, metavar="N,N", help="parameters to keep: 49B,35B")
    parser.add_argument("--layers", type=int, metavar="N", help="layers that are timed (default: what memory holds)")
    texts = ("model", "revision", "device", "dtype", "target", "engine", "compensation")
    numbers = (
        "mlp_unit",
        "tensor_parallel",
        "seed",
        *(f"latency_{one}" for one in ("prompt", "decode", "batch", "repeats")),
    )
    places = ("cache", "vllm_python", "llama_python")
    for kind, names in ((str, texts), (int, numbers), (Path, places)):
        for name in names:
            option = "--" + name.replace("_", "-")
            parser.add_argument(option, type=kind, default=argparse.SUPPRESS, help="as in main.py latency-table")
    given = vars(parser.parse_args(arguments))
    try:
        bench(given, given.pop("params").split(","), given.pop("layers"), View())
    except SelfPrunerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
