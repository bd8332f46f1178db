"""The command line: all commands, in the order in which `--help` shows them."""

from __future__ import annotations

import click

from self_pruner.agent.command_line.measurements import decisions, evaluate, latency_table, tasks
from self_pruner.agent.command_line.parser import CommandLine, program_version
from self_pruner.agent.command_line.prompts import prompts
from self_pruner.agent.command_line.runs import compare, export, report, resume, run, trace, why
from self_pruner.agent.command_line.steering import pause, stop, tell
from self_pruner.agent.command_line.watch import watch


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  python main.py --sparsity 0.3\n  python main.py --model llama-2-70b --params 49B\n"
    "  python main.py resume runs/smollm2-135m-20260101-120000",
)
@click.version_option(program_version(), message="%(version)s")
def command_line() -> None:
    """A large language model that prunes itself. Without a command: run."""


for each in (
    run,
    compare,
    resume,
    watch,
    tell,
    pause,
    stop,
    report,
    trace,
    why,
    export,
    evaluate,
    tasks,
    decisions,
    prompts,
    latency_table,
):
    command_line.add_command(each)
