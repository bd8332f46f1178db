"""The commands behind the command line. Heavy imports wait until the arguments are known to be good."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from agent.arguments import given, parse
from agent.settings import make_settings
from agent.view import View

STOPPED = 130  # exit status of a run that was stopped and can be resumed


def command(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit status."""
    options = parse(arguments)
    return {"run": _run, "resume": _run, "report": _report, "trace": _trace, "export": _export}[options.command](
        options, View()
    )


def _run(options: Namespace, view: View) -> int:
    settings = make_settings(given(options)) if options.command == "run" else None
    from agent import session
    from agent.report import show_outcome
    from agent.run_directory import RunDirectory

    try:
        path, outcome = session.start(settings, view) if settings else session.resume(options.run, view)
    except session.Stopped as stopped:
        view.line(f"Stopped. Go on with: python main.py resume {stopped.run}", "yellow")
        return STOPPED
    show_outcome(outcome, RunDirectory.open(path), view)
    return 0


def _report(options: Namespace, view: View) -> int:
    from agent.finish import read_outcome
    from agent.report import show_outcome, write_report
    from agent.run_directory import RunDirectory

    run = RunDirectory.open(options.run)
    outcome = read_outcome(run.path)
    write_report(run, make_settings(run.settings), outcome)
    if outcome is None:
        view.line(f"This run is not finished ({run.status}): {run.report} holds what there is.")
        view.line(f"Go on with: python main.py resume {run.path}")
    else:
        show_outcome(outcome, run, view)
    return 0


def _trace(options: Namespace, view: View) -> int:
    from agent.run_directory import RunDirectory
    from agent.show_trace import show_step, show_steps

    run = RunDirectory.open(options.run)
    if options.step is None:
        show_steps(run.trace, view)
    else:
        show_step(run.trace, options.step, view)
    return 0


def _export(options: Namespace, view: View) -> int:
    from agent import session

    verified = session.export(options.run, options.candidate, options.output, view)
    view.line(f"Checkpoint  {options.output}  (reloaded in a new process, largest logit difference {verified:.1e})")
    return 0
