"""What the brain decided, in words: for the screen, beside or instead of what it thought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from self_pruner.agent.run_files.trace import Act


def decisions(acts: Sequence[Act]) -> str:
    """The calls of the brain in the order in which they were run, as one clause; "" where there are none."""
    return ", ".join(in_words(act.tool, act.arguments) for act in acts)


def in_words(tool: str, arguments: dict[str, Any]) -> str:
    """One call, such as "mutated c12 (layers 3, 9)"; the tool's name where it is none that is known here."""
    if tool == "prune_model":
        return _made(arguments)
    if tool == "record_population":
        return f"kept {_names(arguments.get('survivors'))}"
    if tool == "benchmark_latency":
        return f"timed {arguments.get('candidate')}"
    return f"called {tool}"


def _made(arguments: dict[str, Any]) -> str:
    operator, parents = arguments.get("operator"), arguments.get("parents")
    if draw := arguments.get("draw"):
        return f"drew {draw} at random" + (f" from {_names(parents)}" if parents else "")
    if operator == "crossover":
        return f"crossed {_names(parents)}"
    if operator == "initialise":
        return "made a profile of its own"
    layers = sorted({edit["layer"] for edit in arguments.get("edits") or ()})
    where = f" (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})" if layers else ""
    return f"mutated {_names(parents)}{where}"


def _names(ids: Any) -> str:
    return " and ".join(ids) if len(ids) < 3 else ", ".join(ids)
