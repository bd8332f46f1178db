"""The commands behind the command line. Heavy imports wait until the arguments are known to be good."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from self_pruner.agent.arguments import given, parse
from self_pruner.agent.settings import Settings, SettingsError, make_settings
from self_pruner.agent.stopping import exit_status
from self_pruner.agent.view import View

if TYPE_CHECKING:
    from self_pruner.agent.compare.folder import ComparisonFolder


def command(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit status."""
    options = parse(arguments)
    does: dict[str, Callable[[Namespace, View], int]] = {
        "run": _run,
        "compare": _compare,
        "resume": _resume,
        "report": _report,
        "trace": _trace,
        "export": _export,
        "verify": _verify,
        "evaluate": _evaluate,
        "tasks": _tasks,
        "latency-table": _latency_table,
        "bench-shapes": _bench_shapes,
    }
    return does[options.command](options, View())


def _compare(options: Namespace, view: View) -> int:
    from self_pruner.agent.compare.folder import is_comparison
    from self_pruner.agent.compare.joining import begin
    from self_pruner.agent.foreign_runs import consent

    if options.into is not None and is_comparison(options.into):
        consent(options.into, options.yes, view)
    return _compared(begin(options, given(options), view), view)


def _compared(comparison: ComparisonFolder, view: View) -> int:
    from self_pruner.agent.compare.report import show
    from self_pruner.agent.compare.runner import carry_out_all
    from self_pruner.agent.session import Stopped

    view.line(f"Comparison {comparison.path}")
    try:
        results = carry_out_all(comparison, view)
    except Stopped:
        view.line(f"Stopped. Go on with: python main.py resume {comparison.path}", "yellow")
        return exit_status()
    show(results, view)
    view.line(f"Page   {comparison.path / 'compare.html'}")
    return 1 if results.missing else 0


def _resume(options: Namespace, view: View) -> int:
    from self_pruner.agent.compare.folder import ComparisonFolder, is_comparison
    from self_pruner.agent.foreign_runs import consent

    consent(options.run, options.yes, view)
    if is_comparison(options.run):
        return _compared(ComparisonFolder.open(options.run.resolve()), view)
    return _run(options, view)


def _run(options: Namespace, view: View) -> int:
    settings = make_settings(given(options)) if options.command == "run" else None
    if settings and options.dry_run:
        return _dry_run(settings, view)
    from self_pruner.agent import session
    from self_pruner.agent.report.html_report import show_outcome
    from self_pruner.agent.run_files.run_directory import RunDirectory

    try:
        path, outcome = session.start(settings, view) if settings else session.resume(options.run, view)
    except session.Stopped as stopped:
        view.line(f"Stopped. Go on with: python main.py resume {stopped.run}", "yellow")
        return exit_status()
    show_outcome(outcome, RunDirectory.open(path), view)
    return 0


def _dry_run(settings: Settings, view: View) -> int:
    from self_pruner.agent.dry_run.dry_run import dry_run, refuse_for_lack_of_room
    from self_pruner.agent.dry_run.show import show

    found = dry_run(settings, view)
    show(found, view)
    refuse_for_lack_of_room(found)
    return 0


def _report(options: Namespace, view: View) -> int:
    from self_pruner.agent.compare.folder import ComparisonFolder, is_comparison
    from self_pruner.agent.report.html_report import show_outcome, write_report
    from self_pruner.agent.result.finish import read_outcome
    from self_pruner.agent.run_files.binding import check_settings
    from self_pruner.agent.run_files.run_directory import RunDirectory

    if is_comparison(options.run):
        from self_pruner.agent.compare.report import show, write_all
        from self_pruner.agent.compare.runner import collect

        results = collect(ComparisonFolder.open(options.run.resolve()))
        write_all(options.run, results)
        show(results, view)
        return 0
    run = RunDirectory.open(options.run, strict=False)
    check_settings(run, view)
    outcome = read_outcome(run.path)
    for sentence in write_report(run, make_settings(run.settings), outcome):
        view.warn(sentence)
    if outcome is None:
        view.line(f"This run is not finished ({run.status}): {run.report} holds what there is.")
        view.line(f"Go on with: python main.py resume {run.path}")
    else:
        show_outcome(outcome, run, view)
    return 0


def _trace(options: Namespace, view: View) -> int:
    from self_pruner.agent.report.trace_view import show_step, show_steps
    from self_pruner.agent.run_files.run_directory import RunDirectory

    run = RunDirectory.open(options.run, strict=False)
    if options.step is None:
        show_steps(run.trace, view)
    else:
        show_step(run.trace, options.step, view)
    return 0


def _export(options: Namespace, view: View) -> int:
    from self_pruner.agent.export import export_folder, export_gguf, gguf_type
    from self_pruner.agent.foreign_runs import consent

    if options.format not in ("transformers", "gguf"):
        raise SettingsError(f"--format: transformers or gguf, got {options.format!r}")
    consent(options.run, options.yes, view)
    if options.format == "gguf":
        file = export_gguf(options.run, options.candidate, options.output, gguf_type(options.type), view)
        view.line(f"GGUF        {file.path}  ({file.type}, {file.bytes / 1e6:,.0f} MB, read again and compared)")
        view.line(f"Next: llama-cli -m {file.path}")
        return 0
    if options.type is not None:
        raise SettingsError("--type is for --format gguf; a folder keeps the type of the weights")
    verified = export_folder(options.run, options.candidate, options.output, view)
    view.line(f"Checkpoint  {options.output}  (reloaded in a new process, largest logit difference {verified:.1e})")
    return 0


def _verify(options: Namespace, view: View) -> int:
    from self_pruner.agent.report.compare_with_vllm import verify_in_vllm

    return verify_in_vllm(options.folder, make_settings(given(options)), view)


def _evaluate(options: Namespace, view: View) -> int:
    from self_pruner.agent.report.html_report import show_checkpoint
    from self_pruner.agent.result.evaluate_checkpoint import CARD, FILE, Wishes, evaluate, folder_of

    wishes = Wishes(options.perplexity_text, options.perplexity_length, options.batch, options.dense)
    try:
        evaluation = evaluate(options.folder, given(options), wishes, view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the measurement in hand.", "yellow")
        return exit_status()
    show_checkpoint(evaluation, view)
    folder = folder_of(options.folder)
    view.line(f"Figures     {folder / FILE}")
    view.line(f"Model card  {folder / CARD}")
    return 0


def _latency_table(options: Namespace, view: View) -> int:
    from self_pruner.agent.prepare.latency_table import latency_table

    latency_table(make_settings(given(options)), options.output, view)
    return 0


def _bench_shapes(options: Namespace, view: View) -> int:
    from self_pruner.agent.prepare.latency_table import bench_shapes

    bench_shapes(make_settings(given(options)), options.counts.split(","), options.layers, view)
    return 0


def _tasks(options: Namespace, view: View) -> int:
    from self_pruner.agent import session
    from self_pruner.agent.foreign_runs import consent
    from self_pruner.agent.report.html_report import show_tasks

    consent(options.run, options.yes, view)
    try:
        outcome = session.tasks(options.run, options.candidate, given(options), view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the task in hand.", "yellow")
        return exit_status()
    show_tasks(outcome, view)
    return 0
