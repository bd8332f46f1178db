"""The last screen of a run: the table, what it means, where everything is, what to do next."""

from __future__ import annotations

from self_pruner.agent.report.result_tables import account, by_text, final_table, served_table, verified
from self_pruner.agent.result.checkpoint_figures import Evaluation, read_evaluation
from self_pruner.agent.result.outcome import Outcome, Served, brain_sentence, recalibration_sentence, summary
from self_pruner.agent.result.same_again import told_sentence
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.tools.export.card import load_call, serve_command


def show_outcome(outcome: Outcome, run: RunDirectory, view: View) -> None:
    """The last screen: the table, what it means, where everything is, what to do next."""
    view.line("")
    view.table(f"{run.name}: {outcome.sparsity:.1%} of the decoder blocks removed", *final_table(outcome))
    view.line(f"Measured on {outcome.measured_on}.", "dim")
    if outcome.latency_setting:
        view.line(f"Latency: {outcome.latency_setting}.", "dim")
    view.line(summary(outcome))
    if outcome.recalibration is not None:
        view.line(recalibration_sentence(outcome))
    if outcome.speed is not None:
        view.line(outcome.speed.sentence())
    show_served(outcome.served, view)
    view.line(brain_sentence(outcome.yields))
    if outcome.told:
        view.line(told_sentence(outcome.told))
    for line in account(outcome):
        view.line(line)
    if outcome.several_texts():
        view.table("On every reporting text", *by_text(outcome))
    show_tasks(outcome, view)
    show_checkpoint(read_evaluation(run.model), view)
    for sentence in outcome.warnings:
        view.warn(sentence)
    view.line("")
    if outcome.verified is not None:
        view.line(f"Checkpoint  {run.model}  ({verified(outcome.verified)})")
    view.line(f"Report      {run.report}")
    view.line(f"Trace       {run.trace}")
    view.line(f"Next: python main.py trace {run.path}")
    view.line(f"      python main.py report {run.path}")
    if outcome.verified is None:
        view.line(f"      python main.py export {run.path} --output FOLDER")
        return
    serving = make_settings(run.settings)
    view.line(f"      python main.py evaluate {run.path}  # tasks and perplexity of the checkpoint")
    view.line(f"      {load_call(str(run.model), serving.target)}  # in transformers")
    if serving.target != "transformers":
        command = serve_command(serving.target, serving.tensor_parallel)
        view.line(f"      cd {run.model} && {command}  # in vLLM")


def show_served(served: Served | None, view: View) -> None:
    """Latencies in the engine that serves models, where they were measured."""
    if served is None:
        return
    if served.failure is not None:
        view.warn(served.sentence())
        return
    view.table("As it is served", *served_table(served))
    view.line(f"Latency: {served.setting}.", "dim")


def show_tasks(outcome: Outcome, view: View) -> None:
    """The zero-shot table, where there is one."""
    if outcome.tasks is not None:
        view.table("Zero-shot tasks", *outcome.tasks.cells())
        view.line(outcome.tasks.measured_on, "dim")


def show_checkpoint(evaluation: Evaluation | None, view: View) -> None:
    """What was measured of the checkpoint on the disk, where it was."""
    if evaluation is not None:
        view.table("The checkpoint on the disk", *evaluation.cells())
        view.line(evaluation.measured_on, "dim")
