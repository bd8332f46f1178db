"""The command line: one function a command, called with its own options and the settings that were `given`.

Heavy imports wait until the arguments are known to be good, so that a mistake and `--help` are answered at once.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from self_pruner.agent.command_line.parser import ALL, Command, CommandLine, Word, candidate_name, program_version
from self_pruner.agent.settings import IN_TIME, SettingsError, make_settings
from self_pruner.agent.stopping import exit_status
from self_pruner.agent.view import View

if TYPE_CHECKING:
    from self_pruner.agent.compare.comparison import Comparison
    from self_pruner.agent.result.outcome import Outcome

PATH = Word(Path)
TIMING = (
    *("model", "revision", "device", "dtype", "mlp_unit", "target", "tensor_parallel", "seed", "cache"),
    *("latency_prompt", "latency_decode", "latency_batch", "latency_repeats"),
    *("engine", "vllm_python", "compensation"),
)
DECIDED = ("arm", "sparsity", "params", "seed", "memory", "latency_table", *IN_TIME)  # by `compare` itself

the_run = click.argument("path", type=PATH, metavar="RUN")
the_folder = click.argument("folder", type=PATH, metavar="CHECKPOINT")
consenting = click.option(
    "--yes", is_flag=True, help="a run from elsewhere may use what it names: programs, endpoints, files outside of it"
)


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  python main.py --sparsity 0.3\n  python main.py --model llama-2-70b --params 49B\n"
    "  python main.py resume runs/smollm2-135m-20260101-120000",
)
@click.version_option(program_version(), message="%(version)s")
def command_line() -> None:
    """A large language model that prunes itself. Without a command: run."""


def _ended(carry_out: Callable[[], tuple[Path, Outcome]], view: View) -> int:
    from self_pruner.agent.report.html_report import show_outcome
    from self_pruner.agent.run_files.run_directory import RunDirectory
    from self_pruner.agent.session import Stopped

    try:
        path, outcome = carry_out()
    except Stopped as stopped:
        view.line(f"Stopped. Go on with: python main.py resume {stopped.run}", "yellow")
        return exit_status()
    show_outcome(outcome, RunDirectory.open(path), view)
    return 0


def _compared(comparison: Comparison, view: View) -> int:
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


@command_line.command(cls=Command, settings=ALL)
@click.option("--dry-run", "dry", is_flag=True, help="say what the run would cost, and stop before it begins")
def run(dry: bool, **given: Any) -> int:
    """Prune a model (the default)."""
    settings = make_settings(given)
    if dry:
        from self_pruner.agent.dry_run.dry_run import dry_run, refuse_for_lack_of_room
        from self_pruner.agent.dry_run.show_bill import show_bill

        bill = dry_run(settings)
        show_bill(bill, View())
        refuse_for_lack_of_room(bill)
        return 0
    from self_pruner.agent import session

    view = View()
    return _ended(lambda: session.start(settings, view), view)


@command_line.command(cls=Command, settings=[name for name in ALL if name not in DECIDED])
@click.option("--arms", required=True, metavar="A,B", help="arms: NAME, NAME:PROMPTS, NAME+SETTING=VALUE")
@click.option("--seeds", default="3", metavar="N", help="how many seeds, or which: 0,3,7 (default 3)")
@click.option("--sparsity", "sparsities", default="0.3", metavar="S,S", help="shares to remove (default 0.3)")
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
def compare(yes: bool, into: Path | None, arms: str, seeds: str, sparsities: str, finished: Any, **given: Any) -> int:
    """Several arms at equal cost."""
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.compare.command import begin
    from self_pruner.agent.compare.comparison import is_comparison

    view = View()
    if into is not None and is_comparison(into):
        consent(into, yes, view)
    options = Namespace(into=into, arms=arms, seeds=seeds, sparsities=sparsities, finished=finished)
    return _compared(begin(options, given, view), view)


@command_line.command(cls=Command)
@the_run
@consenting
def resume(path: Path, yes: bool) -> int:
    """Go on with a run or a comparison that was stopped or killed."""
    from self_pruner.agent import session
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.compare.comparison import Comparison, is_comparison

    view = View()
    consent(path, yes, view)
    if is_comparison(path):
        return _compared(Comparison.open(path.resolve()), view)
    return _ended(lambda: session.resume(path, view), view)


@command_line.command(cls=Command)
@the_run
def report(path: Path) -> int:
    """Write report.html anew and show the result."""
    from self_pruner.agent.compare.comparison import Comparison, is_comparison
    from self_pruner.agent.compare.report import show, write_all
    from self_pruner.agent.compare.runner import collect
    from self_pruner.agent.report.html_report import show_outcome, write_report
    from self_pruner.agent.result.finish import read_outcome
    from self_pruner.agent.run_files.binding import check_settings
    from self_pruner.agent.run_files.run_directory import RunDirectory

    view = View()
    if is_comparison(path):
        results = collect(Comparison.open(path.resolve()))
        write_all(path, results)
        show(results, view)
        return 0
    one = RunDirectory.open(path, strict=False)
    check_settings(one, view)
    outcome = read_outcome(one.path)
    for sentence in write_report(one, make_settings(one.settings), outcome):
        view.warn(sentence)
    if outcome is None:
        view.line(f"This run is not finished ({one.status}): {one.report} holds what there is.")
        view.line(f"Go on with: python main.py resume {one.path}")
    else:
        show_outcome(outcome, one, view)
    return 0


@command_line.command(cls=Command)
@the_run
@click.option("--step", type=int, metavar="N", help="show this step in full, with its prompt")
def trace(path: Path, step: int | None) -> int:
    """Show what was said and done, step by step."""
    from self_pruner.agent.report.trace_view import show_step, show_steps
    from self_pruner.agent.run_files.run_directory import RunDirectory

    one = RunDirectory.open(path, strict=False)
    if step is None:
        show_steps(one.trace, View())
    else:
        show_step(one.trace, step, View())
    return 0


@command_line.command(cls=Command)
@the_run
@click.option("--candidate", type=Word(candidate_name), metavar="X", help="id of the one to write (default: the best)")
@click.option("--output", type=PATH, required=True, metavar="X", help="folder or file to write, must not exist")
@click.option(
    "--format", default="transformers", metavar="X", help="transformers (a folder, default) or gguf (a file, llama.cpp)"
)
@click.option("--type", metavar="X", help="with --format gguf: f32, f16 or bf16 (default: as the weights are)")
@consenting
def export(path: Path, candidate: str | None, output: Path, format: str, type: str | None, yes: bool) -> int:
    """Write the best profile of a run as a checkpoint."""
    if format not in ("transformers", "gguf"):
        raise SettingsError(f"--format: transformers or gguf, got {format!r}")
    if format != "gguf" and type is not None:
        raise SettingsError("--type is for --format gguf; a folder keeps the type of the weights")
    from self_pruner.agent import session
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.export import export_gguf, gguf_type

    view = View()
    consent(path, yes, view)
    if format == "gguf":
        file = export_gguf(path, candidate, output, gguf_type(type), view)
        view.line(f"GGUF        {file.path}  ({file.type}, {file.bytes / 1e6:,.0f} MB, read again and compared)")
        view.line(f"Next: llama-cli -m {file.path}")
        return 0
    verified = session.export(path, candidate, output, view)
    view.line(f"Checkpoint  {output}  (reloaded in a new process, largest logit difference {verified:.1e})")
    return 0


@command_line.command(cls=Command, settings=("vllm_python", "tensor_parallel", "trust_remote_code"))
@the_folder
def verify(folder: Path, **given: Any) -> int:
    """Compare what vLLM writes with an exported checkpoint, token by token."""
    from self_pruner.agent.report.compare_with_vllm import verify_in_vllm

    return verify_in_vllm(folder, make_settings(given), View())


@command_line.command(
    cls=Command,
    settings=("model", "revision", "trust_remote_code", "device", "dtype", "task_rows", "task_data", "cache"),
    texts={"model": "the dense model (default: the one that the folder was cut from)"},
)
@the_folder
@click.option("--perplexity-text", metavar="X", help="wikitext2 (default, where it can be had) or a .txt/.jsonl file")
@click.option("--perplexity-length", type=int, metavar="N", help="tokens of a window (default: that of its run)")
@click.option("--batch", type=int, metavar="N", help="questions side by side (default 8, on a GPU 32)")
@click.option("--dense/--no-dense", default=True, help="measure the dense model beside it (default on)")
def evaluate(folder: Path, batch: int | None, dense: bool, **given: Any) -> int:
    """The seven tasks and perplexity of a checkpoint, or of a run's, beside its dense model; goes on where it was."""
    from self_pruner.agent.report.html_report import show_checkpoint
    from self_pruner.agent.result import evaluate_checkpoint as evaluation

    view = View()
    wishes = evaluation.Wishes(given.pop("perplexity_text"), given.pop("perplexity_length"), batch, dense)
    try:
        found = evaluation.evaluate(folder, given, wishes, view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the measurement in hand.", "yellow")
        return exit_status()
    show_checkpoint(found, view)
    checkpoint = evaluation.folder_of(folder)
    view.line(f"Figures     {checkpoint / evaluation.FILE}")
    view.line(f"Model card  {checkpoint / evaluation.CARD}")
    return 0


@command_line.command(cls=Command, settings=("task_rows", "task_data"))
@the_run
@click.option(
    "--candidate", type=Word(candidate_name), metavar="X", help="whom to add (default: the models of the final table)"
)
@consenting
def tasks(path: Path, candidate: str | None, yes: bool, **given: Any) -> int:
    """Measure the seven zero-shot tasks for a finished run; run again, it goes on where it was."""
    from self_pruner.agent import session
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.report.html_report import show_tasks

    view = View()
    consent(path, yes, view)
    try:
        outcome = session.tasks(path, candidate, given, view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the task in hand.", "yellow")
        return exit_status()
    show_tasks(outcome, view)
    return 0


@command_line.command("latency-table", cls=Command, settings=(*TIMING, "sparsity", "params"))
@click.option("--output", type=PATH, metavar="X", help="file for a copy of it, for --latency-table elsewhere")
def latency_table(output: Path | None, **given: Any) -> int:
    """Milliseconds of every width here, and how well they predict."""
    from self_pruner.agent.prepare.latency_table import latency_table as measure

    measure(make_settings(given), output, View())
    return 0


@command_line.command("bench-shapes", cls=Command, settings=TIMING)
@click.option("--params", "counts", required=True, metavar="N,N", help="parameters to keep: 49B,35B")
@click.option("--layers", type=int, metavar="N", help="layers that are timed (default: what memory holds)")
def bench_shapes(counts: str, layers: int | None, **given: Any) -> int:
    """Speed-up of pruned shapes with random weights, also of giants."""
    from self_pruner.agent.prepare.latency_table import bench_shapes as measure

    measure(make_settings(given), counts.split(","), layers, View())
    return 0
