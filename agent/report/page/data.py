"""The one document that a page is made of: everything of a run, read from its folder and nowhere else.

It is made of runs that go on, ended, failed or have only begun. What is missing or damaged is left out, and said.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.report.page.overview import budget_words, overview, progress, whatever
from self_pruner.agent.report.page.run_state import run_state
from self_pruner.agent.report.page.search_data import NOTHING, search_data
from self_pruner.agent.report.page.trace_lines import TraceLines, read_lines
from self_pruner.agent.result.checkpoint_figures import FILE as FIGURES
from self_pruner.agent.result.checkpoint_figures import read_evaluation
from self_pruner.agent.result.outcome import Outcome
from self_pruner.agent.result.result_file import read_outcome, still_to_do
from self_pruner.agent.result.same_again import same_again
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.steering import asks_brain, comparison_of, read_notes
from self_pruner.agent.run_files.trace import left_out
from self_pruner.agent.settings.panels import PANELS
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.settings.stated import with_defaults
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.tools.text.redaction import without_keys

LONGEST_TEMPLATE = 131_072  # bytes; no prompt set has a larger one
LIMITS = ("evaluations", "tokens", "minutes", "fidelity")


def page_data(run: RunDirectory, start: int = 0, finished: str | None = None) -> dict[str, Any]:
    """The document of one run, of plain values of JSON.

    Args:
        run: its folder, which is only read.
        start: byte of the trace from which on records are wanted, as `trace_end` of an earlier document says.
        finished: why the search ended, of a run that is about to be finished; else its status is asked.

    Returns:
        What every tab shows, and `gaps`: what was left out, and why, a sentence each.
    """
    gaps: list[str] = [f"{run.fault}: versions and device are left out"] if run.fault else []
    settings = whatever(lambda: make_settings(run.settings), None, gaps)
    values = with_defaults(run.settings)
    outcome: Outcome | None = whatever(lambda: read_outcome(run.path), None, gaps)
    begun = outcome is not None or run.checkpoint.exists()
    lines = trace_of(run, start, gaps, begun)
    judges = [one for one in (lines if start == 0 else trace_of(run, 0, [], begun)).records if one["kind"] == "judge"]
    holdout = outcome.holdout if outcome else {}
    known = run.records.is_file() or run.checkpoint.exists()
    nothing = dict(NOTHING)
    search = whatever(lambda: search_data(run.records, run.id, values, holdout), nothing, gaps) if known else nothing
    checkpoint = read_evaluation(run.model) if outcome else None
    if outcome and checkpoint is None and (run.model / FIGURES).is_file():
        gaps.append(f"{FIGURES} of the checkpoint is damaged and was left out")
    state = run_state(run) if finished is None else {"state": "finished", "reason": finished}
    if outcome and settings and state["state"] != "finished" and (left := still_to_do(settings, outcome)):
        stopped = "" if state["state"] in ("stopped", "failed", "interrupted") else " if it is stopped"
        gaps.append(f"{', '.join(left)} still to do{stopped}: {own_command('resume', run.path)}")
    if outcome:  # of a search that had nothing to record, too
        search["dense"] = outcome.dense
    document = {
        "run": run.name,
        "path": str(run.path),
        "model": str(values["model"]),
        "state": state,
        "limits": {name: values[name] for name in LIMITS},
        "arm": str(values["arm"]),
        "budget": budget_words(values, outcome.sparsity if outcome else None),
        "progress": progress(settings, judges),
        "asks_brain": bool(settings and asks_brain(settings) and comparison_of(run.path) is None),
        "notes": [note.model_dump() for note in read_notes(run.path)],
        "overview": overview(outcome, checkpoint, settings, run.model) if outcome else None,
        "found": {"attention": outcome.attention, "mlp": outcome.mlp} if outcome else None,
        "prompts": templates(run.prompts),
        "reproduce": reproduce(run, settings, outcome.told if outcome else ()),
        "gaps": gaps,
    }
    # the trace and the memory were written without keys
    told = {"trace": lines.records, "trace_from": lines.start, "trace_end": lines.end}
    return {**without_keys(document), **search, **told}


def trace_of(run: RunDirectory, start: int, gaps: list[str], begun: bool) -> TraceLines:
    """The trace from byte `start` on; what is wrong is added to `gaps`, its absence where a search has `begun`."""
    if not run.trace.is_file():
        if begun or run.trace.exists():
            gaps.append("trace.jsonl is missing: what the brain said, and what came of it, is left out")
        return TraceLines()
    try:
        lines = read_lines(run.trace, start)
    except RunDirectoryError as error:
        gaps.append(f"{error}: what the brain said, and what came of it, is left out")
        return TraceLines()
    gaps += left_out(lines.damaged)
    return lines


def templates(folder: Path) -> list[dict[str, str]]:
    """The files of the run's prompt set, by name: their text, as long as no template is."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in (".j2", ".toml") and path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                found.append({"name": path.name, "text": file.read(LONGEST_TEMPLATE).decode("utf-8", "replace")})
    return found


def reproduce(run: RunDirectory, settings: Settings | None, told: Sequence[str] = ()) -> dict[str, Any]:
    """What it takes to make the run again: command, versions, and every setting with what it means."""
    environment = run.environment
    command = environment.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    versions = environment.get("versions")
    return {
        "command": f"python {shlex.join(words)}" if words else "",
        "again": same_again(settings, environment, told) if settings else "",
        "versions": versions if isinstance(versions, dict) else {},
        "environment": {
            name: environment.get(name) for name in ("created", "device", "processors", "python", "platform")
        },
        "settings": described(run.settings),
    }


def described(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings by panel, each with its value, its default and its help text; those of another version at the end."""
    found: list[dict[str, Any]] = []
    for panel in PANELS:
        for name in panel.__annotations__:
            field = Settings.model_fields.get(name)
            if field is not None:
                one = {"panel": str(panel.__doc__).rstrip("."), "name": name, "help": field.description}
                default = field.get_default()
                found.append(
                    one | {"value": values.get(name), "default": str(default) if isinstance(default, Path) else default}
                )
    known = {one["name"] for one in found}
    others = {"panel": "Of another version", "help": "", "default": None}
    return found + [others | {"name": name, "value": value} for name, value in values.items() if name not in known]
