"""Two workers beside one process, with one thread each: candidate tokens a second both ways, and their ratio.

Generations of offspring are measured in turn by the walk of this process and by the walk of two workers, as a search
does it: sequence after sequence, and from states that the generation before has left. Each way makes the refits that it
needs; two workers make most of them twice, which is what keeps the ratio below two.

    python -m benchmarks.workers

Also says whether both ways find the same scores, how busy the machine was, and the ratio by seconds of the processor of
the busiest process, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from benchmarks.population.work import generation
from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.tools.evaluation.walk import Measurement, PopulationWalk
from self_pruner.tools.evaluation.workers.pool import Room, Workers
from self_pruner.tools.evaluation.workers.walk import WorkersWalk
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile
from self_pruner.tools.workbench import FITNESS


def processors() -> dict[int, float]:
    """Seconds of the processor that this process, as 0, and each worker that it started on this machine have used."""
    found = {0: time.process_time()}
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray's own come and go
            if "ray::Worker" in " ".join(one.cmdline()):
                found[one.pid] = sum(one.cpu_times()[:2])
    return found


def timed(walk: PopulationWalk, profiles: list[Any], rows: range) -> tuple[float, float, list[list[Measurement]]]:
    """Candidate tokens a second of the clock, and of the processor of whoever was busiest, and what was found."""
    start, before = time.perf_counter(), processors()
    found = list(walk.in_steps(profiles, rows, 1))
    tokens, seconds = len(profiles) * len(rows) * walk.targets.length, time.perf_counter() - start
    busiest = max(now - before.get(number, 0.0) for number, now in processors().items())
    return tokens / seconds, tokens / max(busiest, 0.01), found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--offspring", type=int, default=8)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096, help="of each candidate")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence")
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    parser.add_argument("--ray-address", help="of a cluster (default: this machine)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        values = {
            **{"model": args.model, "dtype": "float32", "device": "cpu", "workers": args.workers, "sensitivities": 0},
            **{"runs": Path(folder), "cache": Path(folder), "sparsity": 0.3, "ray_address": args.ray_address},
            **{"sequence_length": args.length, "fidelity": (args.tokens,), "probe_tokens": args.length},
            **{"final_tokens": args.length, "reporting_tokens": args.length, "calibration_length": args.length},
            **{"sensitivity_tokens": args.length, "calibration_sequences": args.calibration_tokens // args.length},
        }
        with closing(prepare(make_settings(values), "benchmark", View())) as prepared:
            own, recipe = prepared.bench.walks[FITNESS], prepared.workers.recipe  # type: ignore[union-attr]
            here = PopulationWalk(own.elastic, own.store, own.targets, own.input_ids)
            room = Room(args.workers, args.workers)
            with closing(Workers(room, args.ray_address, "cpu", recipe, print)) as workers:
                compare(here, WorkersWalk(own.elastic, own.targets, workers, FITNESS), prepared.bench.budget, args)


def compare(here: PopulationWalk, there: WorkersWalk, budget: Budget, args: argparse.Namespace) -> None:
    """Generation after generation both ways; the first is left out, for with it workers begin."""
    rng, names = random.Random(0), {here: "one process", there: f"{there.workers.count} workers"}
    parents = [random_profile(budget, rng) for _ in range(4)]
    rows, same = range(args.tokens // args.length), True
    rates: dict[PopulationWalk, list[tuple[float, float]]] = {here: [], there: []}
    for number in range(args.generations + 1):
        profiles = generation(budget, parents, args.offspring, rng)
        scores = []
        for walk in (here, there) if number % 2 else (there, here):  # who begins changes
            *rate, found = timed(walk, profiles, rows)
            scores.append([[(one.kl, one.nll) for one in step] for step in found])
            if number:
                rates[walk].append((rate[0], rate[1]))
                print(f"generation {number}, {names[walk]}: {rate[0]:.1f} tokens/s", flush=True)
        same = same and scores[0] == scores[1]
        parents = profiles[:4]
    clock, processor = (
        [len(rates[walk]) / sum(1 / rate[way] for rate in rates[walk]) for walk in (here, there)] for way in (0, 1)
    )
    print(
        f"{args.model}, {args.offspring} candidates on {args.tokens} tokens, one thread a process, {os.cpu_count()} "
        f"cores, load average {os.getloadavg()[0]:.1f}: one process {clock[0]:.1f} tokens/s, {names[there]} "
        f"{clock[1]:.1f} tokens/s, ratio {clock[1] / clock[0]:.2f}; by the processor {processor[0]:.1f} and "
        f"{processor[1]:.1f}, ratio {processor[1] / processor[0]:.2f}; "
        f"the scores are {'the same' if same else 'NOT the same'}"
    )
    if not same:
        raise SystemExit("workers find other scores than one process")


if __name__ == "__main__":
    main()
