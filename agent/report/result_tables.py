"""What is said of a result: its tables as header and rows of text, and what it cost. Both screen and page show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from self_pruner.agent.result.outcome import Outcome, Row, Served
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view.to_copy import to_copy
from self_pruner.tools.export.card import serve_command
from self_pruner.tools.text.quantities import counted, size

LATENCIES = ("prefill ms", "decode ms", "tokens/s", "speed-up")  # headings


def final_table(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the final table."""
    rows: list[tuple[str, ...]] = [
        (row.name, f"{row.params:,}", figure(row.kl, 4), figure(row.perplexity, 2), *_latencies(row))
        for row in outcome.rows
    ]
    return ("", "parameters", "KL", "perplexity", *LATENCIES), rows


def brief_table(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the final table in 80 columns: how much faster, but not the milliseconds."""
    timed = any(row.speedup is not None for row in outcome.rows)
    header, rows = final_table(outcome)
    kept = [0, 1, 2, 3, *([header.index("speed-up")] if timed else [])]
    return tuple(header[index] for index in kept), [tuple(row[index] for index in kept) for row in rows]


def _latencies(row: Row) -> tuple[str, ...]:
    return (
        figure(row.prefill_ms, 1),
        figure(row.decode_ms, 2),
        figure(row.tokens_per_second, 1),
        figure(row.speedup, 2),
    )


def served_table(served: Served) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the latencies in the engine that serves models."""
    return ("", *LATENCIES), [(row.name, *_latencies(row)) for row in served.rows]


def by_text(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table of KL and perplexity by text."""
    names = list(dict.fromkeys(row.name for row in outcome.texts))
    rows = [
        (text, *(f"{figure(row.kl, 4)} / {figure(row.perplexity, 2)}" for row in outcome.texts if row.text == text))
        for text in dict.fromkeys(row.text for row in outcome.texts)
    ]
    return ("KL / perplexity", *names), rows


def verified(difference: float) -> str:
    """What was found of a checkpoint that was loaded again."""
    return f"reloaded in a new process, largest logit difference {difference:.1e}"


def account(outcome: Outcome) -> list[str]:
    """What the run cost and who proposed, in a few lines."""
    spent = outcome.spent
    made: Counter[str] = Counter()
    for one in outcome.yields:
        made[one.proposed_by] += one.made
    total = max(1, sum(made.values()))
    share = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in made.items())
    return [
        f"Stopped because {outcome.stop}: {counted(round(spent['evaluations']), 'candidate')} evaluated on "
        f"{spent['tokens']:,.0f} tokens in {counted(round(spent['generation']), 'generation')}, "
        f"{spent['search_minutes']:.1f} minutes of search.",
        f"Proposed by: {share}. Brain: {counted(round(spent['brain_turns']), 'turn')}, "
        f"{spent['brain_output_tokens']:,.0f} tokens written in {spent['brain_decode_steps']:,.0f} decode steps, "
        f"{spent['brain_seconds']:.0f} s.",
        f"Failed turns {spent['failed_turns']:.0f}, illegal replies {spent['illegal']:.0f}, turns the tool "
        f"stood in for {spent['fallbacks']:.0f}.",
        f"{spent.get('factorisations', 0):.0f} factorisations of {spent.get('factored_places', 0):.0f} places "
        "since the run was last started.",
        *([workers_sentence(spent)] if "workers" in spent else []),
        f"Memory: weights {size(spent['weight_bytes'])}, one copy for brain and candidates; peak "
        f"{size(spent.get('peak_gpu_bytes') or spent['peak_resident_bytes'])}"
        f"{' on the GPU' if 'peak_gpu_bytes' in spent else ' resident'}.",
    ]


def workers_sentence(spent: Mapping[str, float]) -> str:
    """How many workers measured, and how many were lost on the way."""
    return f"Measured by {spent['workers']:.0f} workers, of which {spent['workers_replaced']:.0f} were replaced."


def serving(settings: Settings, checkpoint: Path) -> str | None:
    """The command that serves a checkpoint; None where it is not made for that."""
    if settings.target == "transformers":
        return None
    return f"{to_copy('cd', checkpoint)} && {serve_command(settings.target, settings.tensor_parallel)}"


def figure(value: float | None, digits: int) -> str:
    """A figure in a cell; a dash where it is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"
