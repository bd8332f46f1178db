"""The zero-shot table of a finished run as a file that stands by itself: command, versions, rows, every figure.

python -m benchmarks.tasks runs/NAME --output tasks.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from self_pruner.agent.result.card_facts import command_line
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings


def main() -> None:
    """Write and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the directory of a finished run with --tasks")
    parser.add_argument("--output", type=Path, help="file for the figures, JSON")
    options = parser.parse_args()
    run = RunDirectory.open(options.run)
    outcome = read_outcome(run.path)
    if outcome is None or outcome.tasks is None:
        raise SystemExit(f"{options.run} has no zero-shot table: python main.py tasks {options.run}")
    header, rows = outcome.tasks.cells()
    answer = {
        "command": command_line(make_settings(run.settings)),
        "versions": run.environment.get("versions", {}),
        "measured_on": outcome.tasks.measured_on,
        "table": [list(header), *map(list, rows)],
        "texts": [row.model_dump() for row in outcome.texts],
        "tasks": outcome.tasks.model_dump(),
    }
    print("\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows]))
    if options.output:
        options.output.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
