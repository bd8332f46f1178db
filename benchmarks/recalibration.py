"""Does recalibration carry over to other text, and does that depend on how long its sequences are?

Takes the found profile of a finished run, recalibrates it on the run's calibration text cut into sequences of each
length, and measures what comes out on the run's reporting texts, beside the profile as it was found. The worst passage
is shown too: refits on few sequences can fail on a single passage and look well on average.

    python -m benchmarks.recalibration runs/NAME --lengths 2048,512 --output recalibration.json
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import fmean

from self_pruner.agent.prepare.workbench import Prepared, prepare
from self_pruner.agent.result.recalibration import CPU_TOKENS, pieces, walks_of
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.pruning.recalibration import recalibrate


def figures(prepared: Prepared, walks: Mapping[str, PopulationWalk], profile: Profile) -> dict[str, object]:
    """KL in nats a token, that of the worst sequence and perplexity by reporting text; the geometric mean of these."""
    found: dict[str, object] = {}
    logs = []
    for name, text in prepared.bench.reporting.items():
        (one,) = walks[text].measure([profile], range(walks[text].targets.n_sequences))
        found[name] = {"kl": fmean(one.kl), "worst": max(one.kl), "perplexity": perplexity(one.nll)}
        logs.append(fmean(one.nll))
    return {**found, "geometric_mean": math.exp(fmean(logs))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--lengths", default="2048,512", help="tokens of a sequence, one after another")
    parser.add_argument("--output", type=Path, help="file for the figures, JSON")
    options = parser.parse_args()
    run = RunDirectory.open(options.run)
    outcome = read_outcome(run.path)
    if outcome is None:
        raise SystemExit(f"{options.run} is not finished")
    profile = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    with tempfile.TemporaryDirectory() as folder:
        settings = make_settings({**run.settings, "memory": Path(folder) / "memory.sqlite"})
        prepared = prepare(settings, run.id, View())
        with closing(prepared.bench.memory):
            bench = prepared.bench
            result: dict[str, dict[str, object]] = {}
            result["found"] = figures(prepared, bench.walks, profile)
            for length in map(int, options.lengths.split(",")):
                text = pieces(prepared.calibration, length)
                batch = max(1, CPU_TOKENS // text.shape[1])
                other = bench.elastic.recalibrated(recalibrate(bench.elastic, profile, text, batch=batch))
                result[f"{len(text)} sequences of {text.shape[1]}"] = figures(prepared, walks_of(bench, other), profile)
    answer = {
        "command": f"python -m benchmarks.recalibration {run.name} --lengths {options.lengths}",
        "profile": profile.key(),
        "figures": result,
    }
    print(json.dumps(answer, indent=1))
    if options.output:
        options.output.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
