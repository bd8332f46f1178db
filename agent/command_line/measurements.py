"""The commands that measure checkpoints, finished runs and this machine.

Heavy imports wait until the arguments are known to be good, so that a mistake and `--help` are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from self_pruner.agent.command_line.parser import PATH, Word, candidate_name, command, consenting, the_run
from self_pruner.agent.report.stopping import exit_status
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.prompts.files import USUAL

TIMING = (
    *("model", "revision", "device", "dtype", "mlp_unit", "target", "tensor_parallel", "seed", "cache"),
    *("latency_prompt", "latency_decode", "latency_batch", "latency_repeats"),
    *("engine", "vllm_python", "llama_python", "compensation"),
)

LABORATORY = (
    *("model", "revision", "trust_remote_code", "device", "dtype", "sparsity", "params", "seed", "brain_url"),
    *("brain_model", "brain_seconds", "temperature", "calibration", "fitness_text", "calibration_sequences"),
    *("calibration_length", "sequence_length", "fidelity", "probe_tokens", "sensitivity_tokens", "final_tokens"),
    *("evaluations", "offspring", "mlp_unit", "importance", "compensation", "runs", "cache"),
)

the_folder = click.argument(
    "folder", type=PATH, metavar="CHECKPOINT", help="its folder, or the directory of the run that wrote it"
)


@command(
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
    from self_pruner.agent.report.last_screen import show_checkpoint
    from self_pruner.agent.result import evaluate_checkpoint as evaluation
    from self_pruner.agent.result.checkpoint_figures import CARD, FILE

    view = View()
    wishes = evaluation.Wishes(given.pop("perplexity_text"), given.pop("perplexity_length"), batch, dense)
    try:
        found = evaluation.evaluate(folder, given, wishes, view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the measurement in hand.", "yellow")
        return exit_status()
    show_checkpoint(found, view)
    checkpoint = evaluation.folder_of(folder)
    view.line(f"Figures     {checkpoint / FILE}", whole=True)
    view.line(f"Model card  {checkpoint / CARD}", whole=True)
    return 0


@command(settings=("task_rows", "task_data"))
@the_run
@click.option(
    "--candidate", type=Word(candidate_name), metavar="X", help="whom to add (default: the models of the final table)"
)
@consenting
def tasks(path: Path, candidate: str | None, yes: bool, **given: Any) -> int:
    """Measure the seven zero-shot tasks for a finished run; run again, it goes on where it was."""
    from self_pruner.agent import session
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.report.last_screen import show_tasks

    view = View()
    consent(path, yes, view)
    try:
        outcome = session.tasks(path, candidate, given, view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the task in hand.", "yellow")
        return exit_status()
    show_tasks(outcome, view)
    return 0


@command(settings=(*TIMING, "sparsity", "params"))
@click.option("--output", type=PATH, metavar="X", help="file for a copy of it, for --latency-table elsewhere")
def latency_table(output: Path | None, **given: Any) -> int:
    """Milliseconds of every width here, and how well they predict."""
    from self_pruner.agent.prepare.latency_table import latency_table as measure

    measure(make_settings(given), output, View())
    return 0


@command(
    settings=LABORATORY,
    texts={
        "seed": "seed of the first search that situations come from (default 0)",
        "evaluations": "candidates of each search (default 64)",
        "final_tokens": "tokens that the outcome of an option is measured on, behind all that the searches see "
        "(default 3072)",
    },
)
@click.option(
    "--brain",
    "brains",
    multiple=True,
    metavar="X,X",
    help="who is scored: self (the target model, default), another model by alias, hub id or folder, or a control, "
    "uniform or first; may be given several times",
)
@click.option(
    "--prompts", default=USUAL, metavar="X,X", help="prompt sets, or folders whose files replace those of terse"
)
@click.option(
    "--kinds", metavar="X,X", help="kinds of decision: shift, edit, survive (default: these), vectors, initialise"
)
@click.option("--situations", type=int, metavar="N", help="situations of each kind (default 24, or those of the set)")
@click.option("--into", type=PATH, metavar="X", help="folder of the decision set; one that is there is used")
def decisions(
    brains: tuple[str, ...], prompts: str, kinds: str | None, situations: int | None, into: Path | None, **given: Any
) -> int:
    """Whether a brain's decisions are better than chance, without a search for each brain or prompt set."""
    from self_pruner.agent.decisions.laboratory import Wishes
    from self_pruner.agent.decisions.laboratory import decisions as carry_out

    view = View()
    try:
        carry_out(make_settings(given), Wishes(brains, prompts, kinds, situations, into), view)
    except KeyboardInterrupt:
        view.line("Stopped. The same command goes on with the situation in hand.", "yellow")
        return exit_status()
    return 0
