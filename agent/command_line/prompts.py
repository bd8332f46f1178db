"""`prompts`: prompt sets as things that one works on, without a model and without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from self_pruner.agent.command_line.parser import PATH, CommandLine, command, consenting
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import to_copy
from self_pruner.prompts.files import USUAL
from self_pruner.prompts.variables import Kind

KIND = click.Choice(get_args(Kind))
SET = "a set by its name (`prompts list`), or a folder of templates"
the_set = click.argument("name", metavar="SET|DIR", help=SET)


@click.group(cls=CommandLine, invoke_without_command=True)
@click.pass_context
def prompts(ctx: click.Context) -> int:
    """List, show, check, copy and compare prompt sets.

    A folder needs only the files that it changes. For those that it lacks, `show`, `check`, `diff` and the origin of
    `new` take those of `terse`, and `try` those of the run's set.
    """
    if ctx.invoked_subcommand is None:
        return int(ctx.invoke(listed))
    return 0


@command(
    "list",
    settings=("memory",),
    texts={"memory": "memory file of the runs that are counted (default runs/memory.sqlite)"},
)
def listed(memory: Path | None = None) -> int:
    """The sets that come with the program, and what came of them and of others in runs."""
    from self_pruner.agent.report.prompt_uses import HEADER, NOTE, rows_of
    from self_pruner.agent.settings.settings import Settings
    from self_pruner.memory.read_only import read_prompt_uses
    from self_pruner.prompts.files import available_sets
    from self_pruner.prompts.templates import PromptSet
    from self_pruner.prompts.workbench import digest

    view = View()
    for name in available_sets():
        one = PromptSet(name)
        view.line(f"{name} ({digest(one)}): {one.description}")
        view.line(f"  {'with' if one.hints else 'no'} hints; {', '.join(one.actions)}")
    path = memory or Settings().memory_path
    if memory is None and not path.exists():
        return 0
    if rows := rows_of(read_prompt_uses(path)):
        view.table(f"In the runs of {path}", HEADER, rows)
        view.line(NOTE, "dim")
    else:
        view.line(f"{path} knows no run yet that ended with this version.")
    return 0


@command()
@the_set
@click.option("--kind", type=KIND, default="plan", help="of turn (default plan)")
def show(name: str, kind: Kind) -> int:
    """The prompt of a made-up turn in the middle of a run."""
    from self_pruner.prompts.sample import sample_variables
    from self_pruner.prompts.workbench import open_set

    found = open_set(name)
    found.check()
    View().line(found.render(sample_variables(kind, found.actions)).text)
    return 0


@command()
@the_set
def check(name: str) -> int:
    """Whether every file renders for every kind of turn."""
    from self_pruner.prompts.workbench import digest, open_set

    found = open_set(name)
    found.check()
    View().line(f"{name}: {len(found.files)} files, digest {digest(found)}; every kind of turn renders")
    return 0


@command()
@click.argument("folder", type=PATH, metavar="DIR", help="where it is to be; it must not exist")
@click.option("--from", "origin", default=USUAL, metavar="SET|DIR", help=f"what it begins with (default: {USUAL})")
def new(folder: Path, origin: str) -> int:
    """A folder with the files of a set, to be changed."""
    from self_pruner.prompts.workbench import new_set

    made = new_set(folder, origin)
    use = to_copy("--prompts", folder)
    View().line(f"{folder}: {len(made.files)} files of {origin}. Use it with {use}", whole=True)
    return 0


@command()
@click.argument("one", metavar="SET|DIR", help=SET)
@click.argument("other", metavar="SET|DIR", help="the other")
def diff(one: str, other: str) -> int:
    """What differs between two sets."""
    from self_pruner.prompts.workbench import differences, open_set

    view = View()
    lines = differences(open_set(one), open_set(other), (one, other))
    for line in lines:
        view.line(line, "green" if line.startswith("+") else "red" if line.startswith("-") else "")
    if not lines:
        view.line(f"{one} and {other} have the same files.")
    return 0


@command()
@click.option("--kind", type=KIND, default="plan", help="of turn (default plan)")
def variables(kind: Kind) -> int:
    """What a template may use: names, types, and values of a made-up turn."""
    from self_pruner.prompts.templates import PromptSet
    from self_pruner.prompts.workbench import variables_of

    view = View()
    for name, of, example in variables_of(kind, PromptSet("default")):
        view.line(f"{name}: {of}" + (f", such as {example}" if example else ""))
    return 0


@command("try", settings=("brain_url", "brain_model"))
@the_set
@click.option("--run", "path", type=PATH, required=True, metavar="RUN", help="whose turn it is")
@click.option("--step", type=int, required=True, metavar="N", help="the turn; main.py trace RUN lists them")
@click.option("--brain", metavar="X", help="another brain: self, a model by alias, hub id or folder, uniform or first")
@consenting
def attempt(name: str, path: Path, step: int, brain: str | None, yes: bool, **given: Any) -> int:
    """Ask a turn of a run again with other templates, and show both.

    What a folder lacks is that of the run's set.
    """
    from self_pruner.agent.command_line.foreign_runs import consent
    from self_pruner.agent.decisions.trial import try_prompts

    view = View()
    consent(path, yes, view)
    try_prompts(path, step, name, brain, given, view)
    return 0


for each in (listed, show, check, new, diff, attempt, variables):
    prompts.add_command(each)
