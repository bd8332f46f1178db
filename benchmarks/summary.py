"""The short table of a comparison from `results.json` alone: an arm a row, a sparsity a column. See docs/results.md.

Cells are geometric means of perplexity over the reporting texts and over seeds, ± half the 95% interval where there are
several seeds; arms that recalibrate have a second row for what comes out of it.

    python -m benchmarks.summary benchmarks/results/c4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from self_pruner.agent.compare.figures import PERPLEXITY, RECALIBRATED, ComparedArms, Measure
from self_pruner.agent.compare.folder import RESULTS
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.tables import ABSENT, percent, plus_minus, table_rows


def short_table(results: Results) -> list[str]:
    """Its lines, in Markdown."""
    compared = ComparedArms(results)
    columns: list[float | None] = [*compared.sparsities, *([None] if len(compared.sparsities) > 1 else [])]
    heads = ["all" if column is None else percent(column) for column in columns]

    def row(arm: str, name: str, measure: Measure) -> str:
        cells = [plus_minus(compared.estimate(arm, column, measure), 2) for column in columns]
        return f"| {name} | {compared.seeds(arm)} | {' | '.join(cells)} |"

    dense = plus_minus(table_rows(compared)[0].geometric, 2)
    lines = [
        f"| arm | seeds | {' | '.join(heads)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in heads)} |",
        f"| dense | {ABSENT} | {' | '.join(dense for _ in heads)} |",
    ]
    for arm in compared.ordered:
        lines.append(row(arm, f"`{arm}`", PERPLEXITY))
        if any(run.recalibrated for run in compared.runs(arm)):
            lines.append(row(arm, f"`{arm}`, recalibrated", RECALIBRATED))
    return lines


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="a comparison's folder")
    options = parser.parse_args()
    try:
        results = Results.model_validate_json((options.comparison / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.comparison} holds no {RESULTS} of a comparison") from error
    print("\n".join(short_table(results)))


if __name__ == "__main__":
    main()
