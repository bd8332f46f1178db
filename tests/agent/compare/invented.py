"""Invented results of comparisons: every figure follows from a few numbers that a test gives."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from hypothesis import settings

from self_pruner.agent.compare.results import CurvePoint, ProposerYield, Results, RunResult, TextResult

TEXTS = ("wikitext2", "c4", "passages")
SEQUENCES = 12

steady = settings(deadline=None, derandomize=True)  # properties that hold on a slow machine, tried on the same examples


def text_result(name: str, perplexity: float, kl: float, noise: float = 0.0, seed: str = "") -> TextResult:
    """Sequences that scatter around the figures, alike for all profiles, with `noise` of the profile's own."""
    shared, own = random.Random(name), random.Random(name + seed)
    easy = [shared.gauss(0, 0.2) for _ in range(SEQUENCES)]
    odd = [own.gauss(0, noise) for _ in range(SEQUENCES)]
    mean_easy, mean_odd = math.fsum(easy) / SEQUENCES, math.fsum(odd) / SEQUENCES
    jitter = [a - mean_easy + b - mean_odd for a, b in zip(easy, odd, strict=True)]
    return TextResult(
        text=name,
        kl=kl,
        perplexity=perplexity,
        kl_by_sequence=[kl * (1 + each / 2) for each in jitter],
        nll_by_sequence=[math.log(perplexity) + each for each in jitter],
    )


def run_result(
    arm: str,
    perplexity: float | Sequence[float],
    *,
    sparsity: float = 0.3,
    seed: int = 0,
    texts: Sequence[str] = TEXTS,
    recalibrated: float | None = None,
    noise: float = 0.02,
    **values: object,
) -> RunResult:
    """A run with this perplexity on every text, or one each; its KL is the logarithm of a twentieth of that."""
    each = [perplexity] * len(texts) if isinstance(perplexity, int | float) else list(perplexity)
    label = f"{arm}{sparsity}{seed}"
    fitness = math.log(each[0] / 20)
    defaults: dict[str, object] = dict(
        model="tiny",
        directory=f"runs/{arm}-{sparsity}-{seed}",
        params=1000,
        attention=[3, 2, 1],
        mlp=[10, 8, 6],
        fitness=fitness,
        holdout=fitness * 1.05,
        cost=5000.0,
        evaluated_tokens=4000.0,
        probe_tokens=600.0,
        brain_tokens=400.0,
        brain_seconds=3.0,
        search_seconds=12.0,
        evaluations=20,
        repaired=1,
        repaired_units=2,
        invalid=0,
        failed_turns=0,
        fallbacks=0,
    )
    return RunResult(
        arm=arm,
        sparsity=sparsity,
        seed=seed,
        texts=[
            text_result(name, value, math.log(value / 20), noise, label)
            for name, value in zip(texts, each, strict=True)
        ],
        recalibrated=[text_result(name, recalibrated, math.log(recalibrated / 20)) for name in texts]
        if recalibrated
        else [],
        **(defaults | values),  # type: ignore[arg-type]
    )


def results(runs: Sequence[RunResult], *, texts: Sequence[str] = TEXTS, **values: object) -> Results:
    """A comparison of these runs."""
    defaults: dict[str, object] = dict(
        command="python main.py compare",
        model="tiny",
        settings={"evaluations": 20, "fidelity": [512, 2048]},
        versions={"torch": "2.13.0"},
        machine="2 cores",
        dense=[text_result(name, 20.0, 0.0) for name in texts],
        units={"attention": 4, "mlp": 12},
        measured_on="three texts, 6,144 tokens each in sequences of 512",
        arms={run.arm: f"what {run.arm} means" for run in runs},
        missing=[],
    )
    return Results(runs=list(runs), **(defaults | values))  # type: ignore[arg-type]


def curve(values: Sequence[float], step: float = 1000.0) -> list[CurvePoint]:
    """A curve with a point every `step` tokens."""
    return [CurvePoint(cost=step * (i + 1), seconds=float(i), fitness=value) for i, value in enumerate(values)]


def proposer(name: str, compared: int, improved: int, operator: str = "mutation", **values: int) -> ProposerYield:
    """A proposer's yield."""
    counts = {"made": compared, "survived": improved // 2} | values
    return ProposerYield(proposed_by=name, operator=operator, compared=compared, improved=improved, **counts)  # type: ignore


def searched(arm: str, perplexity: float, seed: int = 0, sparsity: float = 0.3, **values: object) -> RunResult:
    """A run that searched: with a curve, a recalibration and candidates of four proposers."""
    yields = [
        proposer("brain", 12, 5),
        proposer("chance", 10, 2),
        proposer("switch", 9, 4),
        proposer("fallback", 0, 0, made=1),
    ]
    more: dict[str, object] = {"curve": curve([1.5, 1.0, 0.8 + 0.01 * seed]), "yields": yields, **values}
    run = run_result(arm, perplexity, seed=seed, sparsity=sparsity, recalibrated=perplexity * 0.95, **more)  # type: ignore
    return run.model_copy(update={"fitness": min(point.fitness for point in run.curve)})  # what it found is its best


FULL = [
    *(
        searched(arm, perplexity * (1 + sparsity) + seed, seed, sparsity)
        for arm, perplexity in (("hybrid", 30.0), ("self", 36.0), ("evolution", 32.0))
        for sparsity in (0.2, 0.3, 0.5)
        for seed in range(3)
    ),
    *(run_result(arm, 45.0, sparsity=sparsity) for arm in ("owl", "uniform") for sparsity in (0.2, 0.3, 0.5)),
]
