"""Seven billion under 24 GB: the whole way from calibration to a checkpoint that was loaded again, with peaks by phase.

The cap is that of a common card, set for this process on whatever card there is. A phase that fails says why, and
those after it, which need it, are not tried: that is where a run on such a card breaks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import Device, reason
from benchmarks.gpu.profiles import Shapes, searched
from benchmarks.gpu.record import Deadline, Record, rounded
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.publish import publish
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import recalibrate

CAP = 24e9  # bytes
SPARSITY = 0.2


class _Broken(Exception):
    """A phase failed."""


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """All phases in order; the first that fails is the answer."""
    if device.is_cuda:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
        record.set(cap_bytes=min(CAP, total))
    try:
        _phases(record, device, shapes)
        record.set(breaks_at=None)
    except _Broken as broken:
        record.set(breaks_at=str(broken))
    broke = record.content["breaks_at"] is not None
    record.target("phases that break under the cap, on the way to the written checkpoint", float(broke), most=0.0)


def _phases(record: Record, device: Device, shapes: Shapes) -> None:
    config = shapes.relative
    dtype = torch.float32 if shapes.toy else torch.bfloat16
    rows, length = (2, 32) if shapes.toy else (16, 2048)
    fitness_rows, fitness_length = (2, 32) if shapes.toy else (8, 512)

    def phase(name: str, action: Callable[[], Any]) -> Any:
        found: list[Any] = []
        device.forget_peak()
        record.set(phase=name)
        try:
            seconds = device.seconds(lambda: found.append(action()))
        except (RuntimeError, MemoryError, SelfPrunerError, OSError) as error:
            record.row(phase=name, error=reason(error), peak_bytes=device.peak_bytes())
            raise _Broken(f"{name}: {reason(error)}") from error
        record.row(phase=name, seconds_taken=rounded(seconds), peak_bytes=device.peak_bytes())
        return found[0]

    def tokens(rows: int, length: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(config.vocab_size, (rows, length), generator=generator).to(device.torch)

    def made() -> Any:
        sizes = [(config.num_key_value_heads, config.intermediate_size)] * config.num_hidden_layers
        model = random_model(config, sizes, dtype=dtype, device=device.torch.type)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
        return model

    model = phase("weights", made)
    text = tokens(rows, length, 1)
    calibration = phase("calibration", lambda: calibrate(model, text))
    free = device.free_bytes()
    # As in a run, where the card is no larger than the cap.
    bound = 1 << 30 if free is None else max(0, int(CAP - torch.cuda.memory_reserved())) // 2
    unit = 32 if shapes.toy else None
    elastic = phase("reordering", lambda: ElasticModel(model, calibration, mlp_unit=unit, refit_memory=bound))
    ids = tokens(fitness_rows, fitness_length, 2)
    targets = phase("dense targets", lambda: DenseTargets.build(elastic, elastic.store, ids))
    budget = Budget.from_sparsity(elastic.space, SPARSITY)
    profile = searched(budget)
    walk = PopulationWalk(elastic, elastic.store, targets, ids)
    phase("walk", lambda: _scored(walk, [profile, uniform(budget)], fitness_rows))
    phase("first-order sensitivities", lambda: list(walk.first_order(profile, [0])))
    moments = phase("recalibration", lambda: recalibrate(elastic, profile, text))
    result = elastic.recalibrated(moments)
    card = CardFacts("shapes of LLaMA-2-7B", "llama", SPARSITY, (), "nothing", "python -m benchmarks.gpu")
    with tempfile.TemporaryDirectory(prefix="self-pruner-gpu-") as folder:
        checked = ids[:1, : min(64, fitness_length)]
        target = Path(folder) / "model"
        phase(
            "export, reload in another process, comparison",
            lambda: publish(result, profile, None, target, card, checked),
        )


def _scored(walk: PopulationWalk, profiles: list[Any], sequences: int) -> None:
    failed = [found.error for found in walk.measure(profiles, range(sequences)) if found.error]
    if failed:
        raise RuntimeError(failed[0])
