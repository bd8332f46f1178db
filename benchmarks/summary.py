"""The short table of a comparison, or of decision sets, from their files alone. See docs/results.md, docs/decisions.md.

Of a comparison: an arm a row, a sparsity a column. Cells are geometric means of perplexity over the reporting texts and
over seeds, ± half the 95% interval where there are several seeds. Arms that recalibrate have a second row for what
comes out of it.

Of decision sets: a brain with a prompt set a row, a kind of a set a column. Cells are the gain over chance in mnat a
token with its 95% interval over situations, bold where zero is outside.

    python -m benchmarks.summary benchmarks/results/c4
    python -m benchmarks.summary benchmarks/results/decisions/smollm2-135m-20-shifts
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from self_pruner.agent.compare.figures import PERPLEXITY, RECALIBRATED, ComparedArms, Measure
from self_pruner.agent.compare.folder import RESULTS
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.tables import ABSENT, percent, plus_minus, table_rows
from self_pruner.agent.decisions.decision_set import FILE, DecisionSetError, read_set
from self_pruner.agent.decisions.score import Row
from self_pruner.agent.decisions.scores import known_rows
from self_pruner.agent.decisions.statistics import apart
from self_pruner.agent.decisions.table import MILLI, bounds, bracketed, in_table, labelled


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


def decisions_table(folders: Sequence[Path]) -> list[str]:
    """Its lines, in Markdown.

    Raises:
        DecisionSetError: a folder without a decision set, or with damaged scores, or two of one name.
    """
    for name, times in Counter(folder.name for folder in folders).items():
        if times > 1:
            raise DecisionSetError(f"{times} folders are called {name}, and the columns are called by the folders")
    columns: dict[str, dict[tuple[str, str], Row]] = {}
    for folder in folders:
        found = read_set(folder / FILE)
        rows = labelled(found, known_rows(folder, found)[0])
        for row in (*rows, *bounds(found, tuple(dict.fromkeys(row.kind for row in rows)))):
            columns.setdefault(f"{row.kind}, {folder.name}", {})[in_table(row, rows), row.prompts] = row
    named = sorted(dict.fromkeys(names for column in columns.values() for names in column))
    named.sort(key=lambda names: names[1] == ABSENT)  # those who read no prompts last

    def cell(row: Row | None) -> str:
        if row is None:
            return ABSENT
        gain = row.mean(lambda one: one.gain)
        text = bracketed(gain, lambda value: f"{round(MILLI * value, 1) + 0.0:.1f}")
        return f"**{text}**" if apart(gain) else text

    return [
        f"| brain | prompts | {' | '.join(columns)} |",
        f"| --- | --- | {' | '.join('---:' for _ in columns)} |",
        *(
            f"| {' | '.join(names)} | {' | '.join(cell(column.get(names)) for column in columns.values())} |"
            for names in named
        ),
    ]


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a comparison, or decision sets")
    folders: list[Path] = parser.parse_args().folders
    if all((folder / FILE).is_file() for folder in folders):
        try:
            print("\n".join(decisions_table(folders)))
        except DecisionSetError as error:
            raise SystemExit(str(error)) from error
        return
    if len(folders) > 1:
        raise SystemExit(f"one comparison, or folders that all hold a {FILE}")
    try:
        results = Results.model_validate_json((folders[0] / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{folders[0]} holds no {RESULTS} of a comparison") from error
    print("\n".join(short_table(results)))


if __name__ == "__main__":
    main()
