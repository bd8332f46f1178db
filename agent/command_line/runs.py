"""The commands that make runs and look at them, called with their own options and the settings that were `given`.

Heavy imports wait until the arguments are known to be good, so that a mistake and `--help` are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from self_pruner.agent.command_line.foreign_runs import consent, holds_comparison
from self_pruner.agent.command_line.listeners import heard
from self_pruner.agent.command_line.parser import ALL, PATH, Word, candidate_name, command, consenting, the_run
from self_pruner.agent.report.stopping import exit_status
from self_pruner.agent.run_files.binding import CHANGEABLE, check_settings
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import IN_TIME, make_settings
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command, to_copy
from self_pruner.memory.errors import SettingsError

if TYPE_CHECKING:
    from self_pruner.agent.compare.folder import ComparisonFolder
    from self_pruner.agent.result.outcome import Outcome

DECIDED = ("arm", "sparsity", "params", "seed", "memory", "latency_table", *IN_TIME)  # by `compare` itself


@command(settings=ALL, brief=True)
@click.option("--dry-run", "dry", is_flag=True, help="say what the run would cost, and stop before it begins")
@heard
def run(dry: bool, view: View, **given: Any) -> int:
    """Prune a model (the default)."""
    settings = make_settings(given)
    if dry:
        if type(view) is not View:
            raise SettingsError("--dry-run tells people what a run would cost: give it without --quiet and --json")
        from self_pruner.agent.dry_run.dry_run import dry_run
        from self_pruner.agent.dry_run.show import show

        found = dry_run(settings, view)
        show(found, view)
        found.placement.refuse()
        return 0
    from self_pruner.agent import session

    return _ended(lambda: session.start(settings, view), view)


@command(
    settings=[name for name in ALL if name not in DECIDED],
    brief=True,
    texts={
        "tokens": "tokens that a search spends: evaluated ones and the brain's (default 150000)",
        "evaluations": "distinct candidates to evaluate at the most (default: what the tokens pay for)",
        "patience": "generations without a better candidate before a search ends (default: however many)",
        "recalibrate": "refit what was found layer by layer on its own activations (default off)",
        "export": "write what was found as checkpoints (default off)",
        "benchmarks": "latency measurements the brain may ask for; 0 measures none at all (default 0)",
        "remembered": "best known profiles of earlier runs to start from (default 0)",
    },
)
@click.option(
    "--arm",
    multiple=True,
    metavar="A",
    help="an arm to compare: NAME, NAME:PROMPTS, NAME+SETTING=VALUE; given once for each",
)
@click.option("--arms", metavar="A,B", help="several arms at once, where no setting of theirs has a comma")
@click.option("--seeds", metavar="N", help="how many seeds, or which: 0,3,7 (default 3, or those of --into)")
@click.option(
    "--sparsity",
    "sparsities",
    metavar="S,S",
    help="shares to remove (default 0.3, or those of the one that --into names)",
)
@click.option("--into", type=PATH, metavar="X", help="folder of the comparison; one that is there goes on and grows")
@click.option(
    "--from",
    "finished",
    type=PATH,
    multiple=True,
    metavar="X",
    help="another comparison with the same settings, a folder or its results.json: runs that are finished there count "
    "and are not run again; may be given several times",
)
@consenting
@heard
def compare(
    yes: bool,
    view: View,
    into: Path | None,
    arm: tuple[str, ...],
    arms: str | None,
    seeds: str | None,
    sparsities: str | None,
    finished: Any,
    **given: Any,
) -> int:
    """Several arms at equal cost."""
    from self_pruner.agent.compare.joining import begin

    if into is not None and holds_comparison(into):
        consent(into, yes, view)
    asked = [*(arms.split(",") if arms else []), *arm]
    comparison = begin(given, asked, sparsities, seeds, into, finished, view)
    return _compared(comparison, into or given.get("runs", Path("runs")) / comparison.path.name, view)


@command(settings=CHANGEABLE)
@click.option(
    "--without-recalibration",
    is_flag=True,
    help="give up the recalibration that a run has still to do, as where there is no room for it; its result says so",
)
@the_run
@consenting
@heard
def resume(path: Path, without_recalibration: bool, yes: bool, view: View, **given: Any) -> int:
    """Go on with a run or a comparison that was stopped or killed."""
    if holds_comparison(path):
        from self_pruner.agent.compare.folder import ComparisonFolder

        if given or without_recalibration:
            raise SettingsError("settings are for a run that goes on; a comparison keeps its own")
        consent(path, yes, view)
        return _compared(ComparisonFolder.open(path.resolve()), path, view)
    RunDirectory.open(path).check_unfinished()
    if given.get("otel") is False:  # which sends no content either
        given.setdefault("otel_content", False)
    consent(path, yes, view)
    from self_pruner.agent import session

    return _ended(lambda: session.resume(path, view, given, gives_up=without_recalibration), view)


@command()
@the_run
def report(path: Path) -> int:
    """Write report.html anew and show the result."""
    view = View()
    if holds_comparison(path):
        from self_pruner.agent.compare.page import show, write_finished

        show(write_finished(path.resolve()), view)
        return 0
    one = RunDirectory.open(path, strict=False)
    check_settings(one, view)
    from self_pruner.agent.report.html_report import write_report
    from self_pruner.agent.report.last_screen import show_outcome
    from self_pruner.agent.result.result_file import read_outcome
    from self_pruner.agent.run_files.steering import what_next

    outcome = read_outcome(one.path)
    for sentence in write_report(one):
        view.warn(sentence, whole=True)
    if outcome is None:
        view.line(f"This run is not finished ({one.status}): {one.report} holds what there is.", whole=True)
        said = what_next(one.path)
        view.line(f"{said[:1].upper()}{said[1:]}", whole=True)
    else:
        show_outcome(outcome, one, view)
    return 0


@command()
@the_run
@click.option("--step", type=int, metavar="N", help="show this step in full, with its prompt")
@click.option("--plans", is_flag=True, help="show what each generation planned, and what came of it")
@click.option("--format", metavar="X", help="write it for other tools: otlp (OTLP/JSON), jsonl or csv")
@click.option("--output", type=PATH, metavar="X", help="with --format: file to write, must not exist (default: stdout)")
def trace(path: Path, step: int | None, plans: bool, format: str | None, output: Path | None) -> int:
    """Show what was said and done, step by step."""
    from self_pruner.agent.report.trace_view import check_begun, show_plans, show_step, show_steps

    one = RunDirectory.open(path, strict=False)
    if step is not None and plans:
        raise SettingsError("--step shows one step, --plans all generations: give one of them")
    check_begun(one)
    if format is not None or output is not None:
        from self_pruner.agent.report.telemetry.trace_file import write_trace

        if step is not None or plans:
            raise SettingsError("--format and --output are for the whole trace, without --step and --plans")
        write_trace(one, format, output)
    elif plans:
        show_plans(one, View())
    elif step is None:
        show_steps(one.trace, View())
    else:
        show_step(one.trace, step, View())
    return 0


@command()
@the_run
@click.option("--layer", type=int, metavar="N", help="only what gave this layer its widths")
def why(path: Path, layer: int | None) -> int:
    """Say which decisions led to the profile that was found."""
    from self_pruner.agent.report.why import why as tell

    tell(path, layer, View())
    return 0


@command()
@the_run
@click.option("--candidate", type=Word(candidate_name), metavar="X", help="id of the one to write (default: the best)")
@click.option("--output", type=PATH, required=True, metavar="X", help="folder or file to write, must not exist")
@click.option(
    "--format", default="transformers", metavar="X", help="transformers (a folder, default) or gguf (a file, llama.cpp)"
)
@click.option("--type", metavar="X", help="with --format gguf: f32, f16 or bf16 (default: as the weights are)")
@consenting
@heard
def export(
    path: Path, candidate: str | None, output: Path, format: str, type: str | None, yes: bool, view: View
) -> int:
    """Write the best profile of a run as a checkpoint."""
    if format not in ("transformers", "gguf"):
        raise SettingsError(f"--format: transformers or gguf, got {format!r}")
    if format != "gguf" and type is not None:
        raise SettingsError("--type is for --format gguf; a folder keeps the type of the weights")
    if format != "gguf" and output.suffix.lower() == ".gguf":
        raise SettingsError(f"--output {output} would be a folder: add --format gguf for a file")
    from self_pruner.agent.command_line.export import export_folder, export_gguf, gguf_type
    from self_pruner.agent.report.result_tables import verified

    consent(path, yes, view)
    facts: dict[str, Any] = {"run": str(path), "checkpoint": str(output), "format": format}
    if format == "gguf":
        file = export_gguf(path, candidate, output, gguf_type(type), view)
        facts |= {"type": file.type, "bytes": file.bytes}

        def show() -> None:
            written = f"{file.type}, {file.bytes / 1e6:,.0f} MB, read again and compared"
            view.line(f"GGUF        {file.path}  ({written})", whole=True)
            view.line(f"Next: {to_copy('llama-cli', '-m', file.path)}", whole=True)
    else:
        difference = export_folder(path, candidate, output, view)
        facts |= {"logit_difference": difference}

        def show() -> None:
            view.line(f"Checkpoint  {output}  ({verified(difference)})", whole=True)

    view.result(str(output), show, **facts)
    return 0


def _ended(carry_out: Callable[[], tuple[Path, Outcome]], view: View) -> int:
    from self_pruner.agent.report.last_screen import facts_of, show_ended
    from self_pruner.agent.session import Stopped

    try:
        path, outcome = carry_out()
    except Stopped as stopped:
        return _stopped(stopped.run, view)
    run = RunDirectory.open(path)
    view.result(str(path), lambda: show_ended(outcome, run, view), **facts_of(outcome, run))
    return 0


def _stopped(path: Path, view: View) -> int:
    command = own_command("resume", path)
    view.tell("stopped", f"Stopped. Go on with: {command}", "yellow", whole=True, run=str(path), resume=command)
    return exit_status()


def _compared(comparison: ComparisonFolder, path: Path, view: View) -> int:
    from self_pruner.agent.compare.folder import RESULTS
    from self_pruner.agent.compare.page import show
    from self_pruner.agent.compare.runner import carry_out_all
    from self_pruner.agent.compare.sentences import sentences
    from self_pruner.agent.session import Stopped

    view.tell("comparison", f"Comparison {path}", whole=True, comparison=str(path))
    try:
        results = carry_out_all(comparison, view)
    except (Stopped, KeyboardInterrupt):
        return _stopped(path, view)
    page = path / "compare.html"

    def shown() -> None:
        show(results, view)
        view.line(f"Page   {page}", whole=True)

    facts = {"page": str(page), "figures": str(path / RESULTS), "sentences": sentences(results)}
    view.result(str(path), shown, comparison=str(path), **facts, missing=results.missing)
    return 1 if results.missing else 0
