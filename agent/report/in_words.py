"""What the brain decided, in words: for the screen, beside or instead of what it thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from self_pruner.agent.run_files.trace import Act


def decisions(acts: Sequence[Act]) -> str:
    """The calls of the brain in the order in which they were run, as one clause; "" where there are none."""
    return ", ".join(in_words(act.tool, act.arguments) for act in acts)


def plan_in_words(plan: Mapping[str, Any]) -> str:
    """A plan, such as "takes some of mlp 20-24 for attention 5-9 (expects better), then stops if it stalls"."""
    hypotheses = plan.get("hypotheses")
    stated = [
        f"takes {one.get('amount')} of {one.get('take')} for {one.get('give')} (expects {one.get('expect')})"
        for one in (hypotheses if isinstance(hypotheses, list | tuple) else ())
        if isinstance(one, Mapping)  # a trace is a file that may be damaged
    ]
    said: dict[str, dict[Any, str]] = {
        "offspring": {"steps": "more steps of the model", "shifts": "more shifts", "tries": "more blind tries"},
        "step": {"finer": "finer tries", "coarser": "coarser tries"},
        "measure": {False: "nothing measured anew"},
        "time": {True: "times the best"},
        "stop": {True: "stops if it stalls"},
    }
    others = [words[plan[name]] for name, words in said.items() if plan.get(name) in list(words)]
    return ", ".join([*stated, *others]) or "goes by rule"


def lesson_in_words(lesson: Mapping[str, Any]) -> str:
    """What came of a hypothesis, such as "held: some of mlp 20-24 for attention 5-9 -0.0123 ± 0.0040"."""
    elsewhere = f", in {lesson['model']}" if lesson.get("model") else ""
    return (
        f"{lesson['verdict']}: {lesson['amount']} of {lesson['take']} for {lesson['give']} "
        f"{lesson['change']:+.4f} ± {lesson['error']:.4f} (expected {lesson['expected']}){elsewhere}"
    )


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
    if operator == "crossover":
        return f"crossed {_names(parents)}"
    if operator == "initialise":
        return "made a profile of its own"
    if isinstance(shift := arguments.get("shift"), Mapping):
        return f"moved {shift.get('amount')} of {shift.get('take')} to {shift.get('give')} in {_names(parents)}"
    layers = sorted({edit["layer"] for edit in arguments.get("edits") or ()})
    where = f" (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})" if layers else ""
    return f"mutated {_names(parents)}{where}"


def _names(ids: Any) -> str:
    ids = ids or ()
    return " and ".join(ids) if len(ids) < 3 else ", ".join(ids)
