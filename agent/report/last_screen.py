"""What is said when a run is done: one screen at its end, all of it by `report`, and the figures for a program."""

from __future__ import annotations

from typing import Any

from self_pruner.agent.report.result_tables import (
    account,
    brief_table,
    by_text,
    final_table,
    served_table,
    serving,
    verified,
)
from self_pruner.agent.report.verdict import verdict
from self_pruner.agent.result.checkpoint_figures import Evaluation, read_evaluation
from self_pruner.agent.result.outcome import Outcome, Served, brain_sentence, recalibration_sentence, summary
from self_pruner.agent.result.same_again import told_sentence
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command
from self_pruner.tools.export.card import load_call


def show_ended(outcome: Outcome, run: RunDirectory, view: View) -> None:
    """The last screen of a run: the verdict, the table, where things are, what to do next."""
    view.line("")
    view.line(verdict(outcome), "bold")
    if outcome.speed is not None:
        view.line(outcome.speed.sentence())
    view.line("")
    view.table("", *brief_table(outcome), brief=True)
    view.line(f"Measured on {outcome.measured_on}. The search ended: {outcome.stop}.", "dim")
    show_served(outcome.served, view)  # there only where the engine is installed
    show_tasks(outcome, view)  # there only where they were asked for
    for sentence in outcome.warnings:
        view.warn(sentence)
    view.line("")
    if outcome.verified is not None:
        view.line(f"Checkpoint   {run.model}", whole=True)
    view.line(f"Page         {run.report}", whole=True)
    view.line(f"All figures  {own_command('report', run.path)}", whole=True)
    view.line(f"Its story    {own_command('trace', run.path, '--plans')}", whole=True)
    if outcome.verified is None:
        view.line(f"Write it     {own_command('export', run.path, '--output', 'FOLDER')}", whole=True)
        return
    view.line(f"Test it      {own_command('evaluate', run.path)}", whole=True)
    if served := serving(make_settings(run.settings), run.model):
        view.line(f"Serve it     {served}", whole=True)


def facts_of(outcome: Outcome, run: RunDirectory) -> dict[str, Any]:
    """The same for a program: main figures and paths."""
    return {
        "run": str(run.path),
        "checkpoint": None if outcome.verified is None else str(run.model),
        "report": str(run.report),
        "trace": str(run.trace),
        "figures": str(run.path / RESULT),
        "verdict": verdict(outcome),
        "candidate": outcome.candidate,
        "sparsity": outcome.sparsity,
        "stop": outcome.stop,
        "found": outcome.result,
        "best_baseline": outcome.best_baseline,
        "rows": [row.model_dump() for row in outcome.rows],
        "differences": [one.model_dump() for one in outcome.differences],
        "logit_difference": outcome.verified,
        "spent": outcome.spent,
    }


def show_outcome(outcome: Outcome, run: RunDirectory, view: View) -> None:
    """All of it: every table, what it means, what it cost, where everything is, what to do next."""
    view.line("")
    view.line(verdict(outcome), "bold")
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
    view.line(brain_sentence(outcome.yields, outcome.choices))
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
        view.line(f"Checkpoint  {run.model}  ({verified(outcome.verified)})", whole=True)
    view.line(f"Report      {run.report}", whole=True)
    view.line(f"Trace       {run.trace}", whole=True)
    view.line(f"Next: {own_command('trace', run.path)}", whole=True)
    if outcome.verified is None:
        view.line(f"      {own_command('export', run.path, '--output', 'FOLDER')}", whole=True)
        return
    view.line(f"      {own_command('evaluate', run.path)}  # tasks and perplexity of the checkpoint", whole=True)
    settings = make_settings(run.settings)
    view.line(f"      {load_call(str(run.model), settings.target)}  # in transformers", whole=True)
    if served := serving(settings, run.model):
        view.line(f"      {served}  # in vLLM", whole=True)


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
