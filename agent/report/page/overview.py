"""The first tab: what a run came to, in tables and sentences, and how far it is while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.report.result_tables import (
    account,
    by_text,
    figure,
    final_table,
    served_table,
    serving,
    verified,
)
from self_pruner.agent.result.checkpoint_figures import Evaluation
from self_pruner.agent.result.outcome import Outcome, brain_sentence, recalibration_sentence, summary
from self_pruner.agent.result.same_again import told_sentence
from self_pruner.agent.settings.limits import about, cost, minutes_left, spent_share
from self_pruner.agent.settings.settings import DEFAULT_SPARSITY, Settings
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.export.card import load_call

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]  # header and rows


def overview(
    outcome: Outcome, checkpoint: Evaluation | None, settings: Settings | None, folder: Path
) -> dict[str, Any]:
    """What a result comes to.

    Args:
        outcome: the result.
        checkpoint: what was measured of the checkpoint afterwards.
        settings: of the run; None where they are of another version.
        folder: of the checkpoint.

    Returns:
        `sentences`, pairs of what it is about and the sentence; `tables`; `cost`, sentences; `spent`, figures by name;
        `chosen`, the candidate that was found; `checkpoint`, where it is and how it is loaded.
    """
    said = {
        "Result": _result(outcome),
        "Search": summary(outcome),
        "Recalibration": recalibration_sentence(outcome),
        "Speed": outcome.speed.sentence() if outcome.speed else "",
        "Served": outcome.served.sentence() if outcome.served else "",
        "Brain": brain_sentence(outcome.yields, outcome.choices),
        "Told": told_sentence(outcome.told),
    }
    return {
        "sentences": [[name, sentence] for name, sentence in said.items() if sentence],
        "tables": tables(outcome, checkpoint),
        "cost": account(outcome),
        "spent": outcome.spent,
        "chosen": outcome.candidate,
        "stop": outcome.stop,
        "warnings": outcome.warnings,
        "checkpoint": _checkpoint(outcome, settings, folder),
    }


def tables(outcome: Outcome, checkpoint: Evaluation | None) -> list[dict[str, Any]]:
    """Every table: title, header and rows as text, the name of the row that is the result, what it was measured on."""
    latency = f" Latency: {outcome.latency_setting}, medians of paired repeats." if outcome.latency_setting else ""
    measured = f"KL in nats a token and perplexity, measured on {outcome.measured_on}; lower is better.{latency}"
    found = [_table("Final table", final_table(outcome), measured, outcome.result)]
    if outcome.several_texts():
        found.append(_table("On every reporting text", by_text(outcome)))
    if outcome.served and outcome.served.rows:
        found.append(_table("As it is served", served_table(outcome.served), f"Latency: {outcome.served.setting}."))
    if outcome.tasks:
        found.append(_table("Zero-shot tasks", outcome.tasks.cells(), outcome.tasks.measured_on))
    if checkpoint:
        found.append(_table("The checkpoint on the disk", checkpoint.cells(), checkpoint.measured_on))
    differences = [
        (one.against, f"{one.mean:+.4f}", figure(one.standard_error, 4), str(one.sequences))
        for one in outcome.differences
    ]
    header = ("found less", "mean KL difference", "standard error", "sequences")
    found.append(_table("Differences, sequence by sequence", (header, differences), "Below zero, found is better."))
    rows = [
        (one.proposed_by, one.operator, *map(str, (one.made, one.compared, one.improved, one.survived)))
        for one in outcome.yields
    ]
    heads = ("proposed by", "operator", "candidates", "compared with parents", "improved", "survived")
    found.append(_table("Who proposed what", (heads, rows)))
    return found


def progress(settings: Settings | None, judges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far a search is, from its judgements in order: `share` of its nearest limit, `left` in words, `spent`."""
    try:
        first, now = judges[0]["spent"], judges[-1]["spent"]
        left = minutes_left(settings, first, now) if settings else None
        return {
            "share": spent_share(settings, now) if settings else None,
            "left": "" if left is None or judges[-1].get("stop") else f"{about(left)} left",
            "tokens": cost(now),
            "evaluations": now.get("evaluations", 0),
            "minutes": now.get("minutes", 0),
            "best": judges[-1].get("best"),
            "fitness": judges[-1].get("fitness"),
            "generation": judges[-1].get("generation"),
        }
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):  # none yet, or of another version
        return {"share": None, "left": ""}


def whatever(ask: Callable[[], Any], otherwise: Any, gaps: list[str]) -> Any:
    """What `ask` returns; where that is a sentence, it is added to `gaps`."""
    try:
        return ask()
    except SelfPrunerError as error:
        gaps.append(f"{error}: left out")
        return otherwise


def budget_words(values: Mapping[str, Any], sparsity: float | None) -> str:
    """The budget of a run, from its settings by name and, where it is known, the share that was removed."""
    try:
        if values["speedup"]:
            return f"{values['speedup']:g} times as fast"
        if values["latency_ms"]:
            return f"{values['latency_ms']:g} ms a request"
        if values["params"] and sparsity is None:
            return f"{values['params']} parameters"
        return f"{sparsity or values['sparsity'] or DEFAULT_SPARSITY:.1%} of the decoder removed"
    except (TypeError, ValueError):  # a file that somebody changed by hand
        return "a budget that cannot be read"


def _result(outcome: Outcome) -> str:
    dense, uniform, found = (outcome.row(name) for name in ("dense", "uniform", outcome.result))
    said = f"{outcome.sparsity:.1%} of the decoder's parameters are removed: {dense.params:,} become {found.params:,}."
    if None not in (dense.perplexity, uniform.perplexity, found.perplexity):
        said += (
            f" Perplexity goes from {dense.perplexity:.2f} to {found.perplexity:.2f}; with equal rates in every layer "
            f"it is {uniform.perplexity:.2f}."
        )
    return said if found.speedup is None else f"{said} A request runs {found.speedup:.2f} times as fast."


def _checkpoint(outcome: Outcome, settings: Settings | None, folder: Path) -> dict[str, Any] | None:
    if outcome.verified is None:
        return None
    found = {
        "path": str(folder),
        "verified": verified(outcome.verified),
        "load": load_call(str(folder), settings.target if settings else "transformers"),
    }
    if settings and (served := serving(settings, folder)):
        found["serve"] = served
    return found


def _table(title: str, cells: Cells, note: str = "", marked: str = "") -> dict[str, Any]:
    return {
        "title": title,
        "header": list(cells[0]),
        "rows": [list(row) for row in cells[1]],
        "note": note,
        "marked": marked,
    }
