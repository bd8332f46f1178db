"""A workbench on a tiny random model and random tokens: everything real but the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from self_pruner.agent.prepare.texts import sensitivity_text
from self_pruner.agent.prepare.workbench import measuring
from self_pruner.agent.search.initial_population import make_initial_population, probe_uniform, with_costs
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.store import Memory
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.workbench import FITNESS, Workbench
from tests.tiny import MLP_UNIT, tiny_model

LENGTH = 16  # tokens of a sequence


def tiny_settings(**values: Any) -> Settings:
    """Settings that fit the tiny model: two fidelities of 2 and 4 sequences, small generations."""
    defaults: dict[str, Any] = dict(
        sparsity=0.3,
        sequence_length=LENGTH,
        fidelity=(2 * LENGTH, 4 * LENGTH),
        probe_tokens=LENGTH,
        sensitivity_tokens=4 * LENGTH,
        final_tokens=2 * LENGTH,
        reporting_tokens=2 * LENGTH,
        evaluations=24,
        offspring=6,
        population=3,
        initial=4,
        benchmarks=1,
        latency_prompt=8,
        latency_decode=2,
        latency_repeats=1,
        brain="uniform",
        arm="hybrid",
    )
    return Settings(**(defaults | values))


def tiny_bench(path: Path, settings: Settings, run: str = "run", family: str = "llama", **model: Any) -> Workbench:
    """A probed workbench of run `run` whose memory is `path/memory.sqlite`."""
    tiny = tiny_model(family, **model)
    generator = torch.Generator().manual_seed(1)
    calibration = calibrate(tiny, torch.randint(0, 512, (4, 32), generator=generator))
    elastic = ElasticModel(tiny, calibration, mlp_unit=MLP_UNIT)
    walks = {}
    for name, rows in ((FITNESS, settings.sequences(settings.fitness_tokens)), ("reporting", 6)):
        ids = torch.randint(0, 512, (rows, LENGTH), generator=generator)
        walks[name] = PopulationWalk(elastic, elastic.store, DenseTargets.build(elastic, elastic.store, ids, k=64), ids)
    bench = Workbench(
        elastic=elastic,
        budget=Budget.from_sparsity(elastic.space, settings.sparsity or 0.2),
        walks=walks,
        memory=Memory(path / "memory.sqlite", "tiny", {}),
        run=run,
        **measuring(settings),
        **sensitivity_text(settings, len(walks[FITNESS].input_ids)),
    )
    bench = with_costs(bench, settings.probe_tokens)
    probe_uniform(bench)
    return bench


def founded_bench(path: Path, settings: Settings, run: str = "run", **model: Any) -> tuple[Workbench, list[str]]:
    """A workbench and the ids of its first candidates."""
    bench = tiny_bench(path, settings, run, **model)
    return bench, make_initial_population(bench, ARMS[settings.arm], settings.remembered)
