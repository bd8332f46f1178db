"""The one document that the page of a comparison is made of: all of its figures, from its results.

The page is the shell of a run's page with tabs of its own; see `agent/report/page`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from self_pruner.agent.compare.figures import (
    PERPLEXITY,
    RECALIBRATED,
    ComparedArms,
    Measure,
    mean_curve,
    staircases,
)
from self_pruner.agent.compare.folder import ComparisonFolder, collect, known_failures
from self_pruner.agent.compare.results import Results, RunResult
from self_pruner.agent.compare.sentences import sentences, worth_sentence
from self_pruner.agent.compare.tables import (
    Table,
    cost,
    generalisation,
    operator_yields,
    paired_differences,
    percent,
    quality,
    table_rows,
)
from self_pruner.agent.compare.worth import brain_worth
from self_pruner.tools.text.redaction import without_keys

TITLES = {
    "brief": "Final figures",
    "quality": "Final figures by text",
    "differences": "Paired differences: would other seeds have changed the order?",
    "operators": "Who proposed what improved",
    "generalisation": "Generalisation",
    "costs": "Cost",
}
NOTES = {
    "brief": "KL is the mean over texts, in nats a token, and perplexity is by text, both on {measured_on}; lower is "
    "better. The geometric mean is over texts, ± half the 95% interval over seeds.",
    "quality": "The KL divergence from the dense model in nats a token, and perplexity, on {measured_on}. Means over "
    "seeds ± half the 95% interval; closed forms are the same for every seed and run once. Where the sparsity is "
    '"all", perplexity is a geometric mean over sparsities and KL an arithmetic one, for arms measured at each. The '
    "geometric mean is over texts; recalibrated is the same after the profile was refitted on its own activations.",
    "differences": "Pairs of runs at one sparsity and seed; a closed form is paired with every seed. Where a pair "
    "was not measured nothing is tested, since the others alone would flatter the arm that failed. p: exact two-sided "
    "test that flips the signs of the differences; with n pairs the least possible is 2/2ⁿ, so fewer than six pairs "
    "can't be significant at 5%. The interval is that test turned round, and the wider the more the difference changes "
    "with the sparsity; (t): with fewer pairs Student's within sparsities, which assumes a normal spread. "
    "Below zero is better. No p is adjusted for the number of comparisons.",
    "operators": "Candidates by who proposed them and by operator, over all runs. Improved: better than the better of "
    "their parents on the same tokens, as a share of those compared with Wilson's 95% interval. Survived: of those "
    "made, among the survivors of their generation. The worth of the brain is pooled, with Newcombe's interval, and "
    "stratified: within runs and generations (Mantel-Haenszel), as its exact test is.",
    "generalisation": "KL in nats a token on the tokens that were searched on, and on others of the same text, which "
    "no search saw.",
    "costs": "Means of a run. Tokens are all that was spent: evaluated, probed and the brain's. Invalid: replies that "
    "no rule allowed. Fallbacks: turns that the tool decided because the brain kept failing. Repaired: candidates "
    "changed to meet the budget.",
}


def of_folder(folder: Path) -> dict[str, Any]:
    """The document of the comparison in `folder`, as far as it has come.

    Raises:
        SettingsError: there is none, or a file of it is damaged.
    """
    return comparison_data(collect(ComparisonFolder.open(folder), known_failures(folder)), folder)


def comparison_data(results: Results, folder: Path | None = None) -> dict[str, Any]:
    """The document of a comparison, of plain values of JSON.

    Args:
        results: all that is known of it.
        folder: where its runs are, so that they can be linked; None where that is not known.
    """
    compared = ComparedArms(results)
    rows = table_rows(compared)
    headline = compared.headline
    arms = compared.arms
    worths = [(arm, brain_worth(compared.runs(arm))) for arm in compared.ordered if compared.kind(arm) == "brain"]
    tables = {
        "brief": quality(rows, compared.texts, brief=True) if arms else None,
        "quality": quality(rows, compared.texts) if arms else None,
        "differences": paired_differences(compared, headline) if headline else None,
        "operators": operator_yields(compared),
        "generalisation": generalisation(compared),
        "costs": cost(rows),
    }
    return without_keys(
        {
            "comparison": f"{len(arms)} {'arm' if len(arms) == 1 else 'arms'} on {results.model}",
            "sentences": sentences(results),
            "headline": headline,
            "arms": [
                {"arm": arm, "meaning": meaning, "kind": compared.kind(arm), "runs": len(compared.runs(arm))}
                for arm, meaning in {**dict.fromkeys(arms, ""), **results.arms}.items()
            ],
            "ordered": compared.ordered,
            "finished": len(results.runs),
            "missing": results.missing,
            "tables": {name: _table(name, found, results) for name, found in tables.items() if found and found.rows},
            "worths": [[arm, worth_sentence(found)] for arm, found in worths if found is not None],
            "curves": curves(compared),
            "runs": [_run(compared, run, folder) for arm in compared.ordered for run in compared.runs(arm)],
            "profiles": profiles(compared) if results.units else [],
            "units": results.units,
            "prompts": results.prompts,
            "reproduce": {
                "command": results.command,
                "settings": [[name, _value(value)] for name, value in results.settings.items()],
                "versions": results.versions,
                "machine": results.machine,
                "measured_on": results.measured_on,
            },
        }
    )


def curves(compared: ComparedArms) -> list[dict[str, Any]]:
    """The best fitness so far against tokens, at every sparsity at which something was searched.

    Arms whose fitness is of other tokens have a chart of their own. Of each arm its staircases, pairs of tokens and
    nats a token, and their mean; one that does not search is a level.
    """
    charts = []
    groups = dict.fromkeys(map(compared.searched_on, compared.ordered))
    for sparsity, (tokens, texts) in product(compared.sparsities, groups):
        series: list[dict[str, Any]] = []
        for arm in (each for each in compared.ordered if compared.searched_on(each) == (tokens, texts)):
            runs = staircases(compared, arm, sparsity)
            fitness = [run.fitness for run in compared.runs(arm, sparsity) if run.fitness is not None]
            if runs:
                series.append({"arm": arm, "runs": runs, "mean": mean_curve(runs), "level": None})
            elif fitness:
                series.append({"arm": arm, "runs": [], "mean": [], "level": fmean(fitness)})
        if any(one["runs"] for one in series):
            on = f"on {tokens:,} tokens of {texts}" if len(groups) > 1 else ""
            charts.append({"sparsity": percent(sparsity), "on": on, "series": series})
    return charts


def chosen(runs: Sequence[RunResult]) -> RunResult:
    """The run of these that a user would keep: the best on held-out tokens, which are not those that are reported.

    It is not chosen by the reported figures, which would flatter it.
    """
    return min(
        runs,
        key=lambda run: (
            math.inf if run.holdout is None else run.holdout,
            math.inf if run.fitness is None else run.fitness,
            run.seed,
        ),
    )


def profiles(compared: ComparedArms) -> list[dict[str, Any]]:
    """What the chosen run of each arm keeps of every layer, by sparsity, the best arm first."""
    shown = {"arm", "seed", "attention", "mlp"}
    return [
        chosen(runs).model_dump(include=shown) | {"sparsity": percent(sparsity)}
        for sparsity in compared.sparsities
        for arm in compared.ordered
        if (runs := compared.runs(arm, sparsity))
    ]


def _run(compared: ComparedArms, run: RunResult, folder: Path | None) -> dict[str, Any]:
    place = PurePosixPath(run.directory)
    here = folder is not None and not place.is_absolute() and ".." not in place.parts
    return run.model_dump(include={"arm", "seed", "fitness", "holdout", "evaluations"}) | {
        "sparsity": percent(run.sparsity),
        "perplexity": _mean(compared, run, PERPLEXITY),
        "recalibrated": _mean(compared, run, RECALIBRATED),
        "tokens": run.cost,
        # one that came from another comparison is not here
        "directory": run.directory if here and folder and (folder / place / "settings.toml").is_file() else None,
    }


def _mean(compared: ComparedArms, run: RunResult, measure: Measure) -> float | None:
    found = compared.value(run, measure)
    return None if found is None else math.exp(found)


def _table(name: str, table: Table, results: Results) -> dict[str, Any]:
    return {
        "title": TITLES[name],
        "header": list(table.header),
        "rows": [list(row) for row in table.rows],
        "note": NOTES[name].replace("{measured_on}", results.measured_on),
    }


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
