"""Does what a candidate is worth during the search agree with what it is worth otherwise?

Takes candidates of a finished run, spread evenly over their ranks, measures them again under another compensation on
the same tokens of the same text, and prints Kendall's tau between the two orders (Kendall, 1938): 1 where the cheaper
or plainer measurement would have ranked alike, 0 where the two have nothing to do with each other. Among the better
half, which is where a search decides, it is printed too.

    python -m benchmarks.ranks runs/NAME --compensation none --output ranks.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from itertools import combinations
from pathlib import Path

from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.records import Candidate, Fitness
from self_pruner.tools.evaluate import measure


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-a of two equally long lists: concordant less discordant pairs, as a share of all pairs."""
    pairs = list(combinations(zip(first, second, strict=True), 2))
    if not pairs:
        raise SystemExit("at least two candidates are needed")
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in pairs]
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(pairs)


LEAST = 3  # candidates, of which the better half are two and so have an order


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--compensation", default="none", choices=("none", "bias", "lstsq"), help="to compare with")
    parser.add_argument("--candidates", type=int, default=24, help="how many, spread over the ranks")
    parser.add_argument("--output", type=Path, help="file for the figures, JSON")
    options = parser.parse_args()
    if options.candidates < LEAST:
        parser.error(f"--candidates: at least {LEAST}, got {options.candidates}")
    run = RunDirectory.open(options.run)
    settings = make_settings(run.settings)
    tokens = settings.fidelity[0]
    view = View()
    with closing(prepare(settings, run.id, view).bench.memory) as memory:
        rows = {row.profile: row for row in memory.recall(Candidate, run=run.id)}
        count = settings.sequences(tokens)
        found = memory.recall(Fitness, profile=list(rows), text="fitness", sequences=count, order="kl")
    known = [(one.profile, one.kl) for one in found if one.kl is not None]
    if len(known) < LEAST:
        raise SystemExit(f"{run.name} has {len(known)} candidates that were measured, and at least {LEAST} are needed")
    last, wanted = len(known) - 1, min(options.candidates, len(known))
    chosen = [known[round(index * last / max(1, wanted - 1))] for index in range(wanted)]  # from the best to the worst
    other = prepare(
        settings.model_copy(update={"compensation": options.compensation, "memory": options.run / "ranks.sqlite"}),
        "ranks",
        view,
    ).bench
    with closing(other.memory):
        measure(other, [profile for profile, _ in chosen], range(count), 0)
        again = [other.fitness(profile, tokens) for profile, _ in chosen]
    pairs = [(kl, fitness.kl) for (_, kl), fitness in zip(chosen, again, strict=True) if fitness and fitness.kl]
    half = pairs[: (len(pairs) + 1) // 2]
    result = {
        "command": f"python -m benchmarks.ranks {run.name} --compensation {options.compensation}",
        "compensation": [settings.compensation, options.compensation],
        "tokens": tokens,
        "candidates": len(pairs),
        "kendall_tau": kendall(*zip(*pairs, strict=True)),
        "kendall_tau_better_half": kendall(*zip(*half, strict=True)),
        "fitness": pairs,
    }
    print(json.dumps({name: value for name, value in result.items() if name != "fitness"}, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
