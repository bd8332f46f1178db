"""One run from its settings to its checkpoint, and on again after it was stopped.

A signal (Ctrl-C, SIGTERM, SIGHUP) asks the graph to end after the node in hand; a second one ends the process at once.
Either way, and after a kill, `resume` goes on with what is on the disk.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from langgraph.runtime import RunControl

from self_pruner.agent.dry_run.dry_run import say_plan
from self_pruner.agent.prepare.brain import asking, brain_of, check_brain, counter_of, room_of
from self_pruner.agent.prepare.checks import at_commit, check_memory, check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.placement import Placement, placed
from self_pruner.agent.prepare.run import Run, announce, in_sentences, in_words, with_probes
from self_pruner.agent.prepare.texts import check_tasks, check_text
from self_pruner.agent.prepare.time_budget import keep_with, with_table
from self_pruner.agent.prepare.workbench import Prepared, prepare
from self_pruner.agent.prepare.workers import with_workers
from self_pruner.agent.report.html_report import stopped, write_report
from self_pruner.agent.report.live_screen import SearchScreen
from self_pruner.agent.report.stopping import draining, heeding
from self_pruner.agent.report.telemetry.listeners import Listeners, check_listeners, listening
from self_pruner.agent.result.finish import choose, export_and_verify, refit, with_weights
from self_pruner.agent.result.outcome import RECALIBRATED, Outcome
from self_pruner.agent.result.recalibration import KEPT, refits_forgotten
from self_pruner.agent.result.result_file import (
    check_candidate,
    give_up_recalibration,
    has_result,
    known_result,
    read_outcome,
    step,
    still_to_do,
    write_outcome,
)
from self_pruner.agent.result.zero_shot import known_on_tasks, with_tasks
from self_pruner.agent.run_files.binding import bind, bind_result, check_begun, check_settings, keep_prompts
from self_pruner.agent.run_files.checkpoints import checkpoints
from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER, RunDirectory
from self_pruner.agent.run_files.run_memory import check_whole
from self_pruner.agent.run_files.steering import read_notes, wait_while_paused
from self_pruner.agent.run_files.trace import TraceRecord, TraceWriter
from self_pruner.agent.search.graph import build_graph, search
from self_pruner.agent.search.initial_population import baselines, make_initial_population, spent_on_probes
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.prompt_variables import Observer, variables_of
from self_pruner.agent.search.state import SearchState, first_state
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import RunDirectoryError, SelfPrunerError
from self_pruner.prompts.asked import keep
from self_pruner.prompts.templates import PromptSet


class Stopped(Exception):
    """The run was stopped and can be resumed; not an error."""

    def __init__(self, run: Path) -> None:
        """The run directory is part of what the user is told."""
        super().__init__(f"stopped: {run}")
        self.run = run


def start(settings: Settings, view: View, drive: Drive | None = None) -> tuple[Path, Outcome]:
    """Make a new run and carry it out, its graph by `drive_graph` or `drive`; returns its directory and the result."""
    check_engine(settings)
    check_listeners(settings)
    runs = settings.runs  # as the user named it, for that is how it is shown
    settings = with_table(at_commit(settings.anchored()), view)
    target = check_target(settings)  # what no weights could mend leaves no run directory behind
    PromptSet(settings.prompts_of_arm, settings.prompts).check()
    check_text(settings)
    check_tasks(settings)
    check_memory(settings.memory_path)
    check_brain(settings, view)
    placement = with_workers(settings, placed(settings, target), view)
    with (
        RunDirectory.create(runs, settings.model, settings.to_toml(), device=target.device, seed=settings.seed) as run,
        heeding(run.path),
    ):
        try:
            keep_prompts(run, settings)
            settings = keep_with(run, settings)
            announce(run, settings, view, resumed=False)
            say_plan(settings, target, placement, view)
            return run.path, carry_out(settings, run, view, placement=placement, drive=drive)
        except SelfPrunerError:
            if not run.checkpoint.exists():  # nothing was searched yet: a mistake leaves no empty run behind
                shutil.rmtree(run.path)
            raise


def resume(
    path: Path, view: View, changes: Mapping[str, Any] | None = None, *, gives_up: bool = False
) -> tuple[Path, Outcome]:
    """Go on with the run at `path`, with `changes` of settings that no figure depends on; `gives_up` recalibration."""
    with RunDirectory.resume(path) as run, heeding(run.path):
        check_settings(run, view)
        settings = make_settings({**run.settings, **(changes or {})})
        check_engine(settings)
        check_listeners(settings)
        left = asking(settings, searches=not has_result(run.path))
        check_brain(left, view)
        keep_prompts(run, settings)
        placement = with_workers(settings, placed(left, check_target(left), begun=True), view)
        if gives_up:
            give_up_recalibration(run, settings)
        run.set_status("running")  # not before: what is refused here leaves it as it was
        announce(run, settings, view, resumed=True)
        view.line(str(placement) + placement.brain(settings))
        return run.path, carry_out(settings, run, view, placement=placement)


def carry_out(
    settings: Settings,
    directory: RunDirectory,
    view: View,
    prepared: Prepared | None = None,
    placement: Placement | None = None,
    drive: Drive | None = None,
) -> Outcome:
    """The run, from its beginning or from where it was. Its status says how it ended.

    What is known of the result is on the disk before the next step begins, so a step that fails, or a kill, costs
    that step only. What was prepared already is left open.
    """
    with listening(settings, directory, view) as listeners:
        searched = partial(run_search, listeners=listeners, drive=drive or drive_graph)
        return _carried_out(settings, directory, view, searched, prepared, placement)


def _carried_out(
    settings: Settings,
    directory: RunDirectory,
    view: View,
    searched: Callable[[Run], SearchState],
    prepared: Prepared | None,
    placement: Placement | None,
) -> Outcome:
    given = prepared is not None
    if directory.checkpoint.exists() and not directory.trace.is_file():
        view.warn("trace.jsonl is missing: what was said and done before is left out of the run's statistics")
    try:
        binding = partial(bind, directory, view=view)
        known = known_result(directory.path, view)
        prepared = prepared or prepare(settings, directory.id, view, directory.records, binding, placement, not known)
        settings = prepared.placement.applied(settings)
        if given:
            bind(directory, prepared.conditions, view)
        with nullcontext() if given else closing(prepared):
            check_begun(directory, prepared.bench.memory, prepared.conditions)
            check_whole(prepared.bench.memory, directory)
            run = Run(settings, directory, with_probes(prepared, settings, view, directory.prompts), view)
            outcome = complete(run, known or save(run, choose(run, searched(run))))
            run.end_stream()
    except (Stopped, KeyboardInterrupt):
        stopped(directory, STOPPED_BY_USER)
        raise Stopped(directory.path) from None
    except Exception as error:
        stopped(directory, f"{type(error).__name__}: {error}")
        raise in_words(error, settings) from error
    directory.set_status("finished", outcome.stop)
    return outcome


def complete(run: Run, outcome: Outcome) -> Outcome:
    """What follows the choice, as far as it is still to do: recalibrate, export, measure tasks, report."""
    left = still_to_do(run.settings, outcome)
    if left:
        with step("recalibration", run.directory):
            outcome, refitted = refit(run, outcome)
            save(run, outcome)
    if "export" in left:
        with step("export", run.directory):
            outcome = save(run, export_and_verify(with_weights(run, refitted), outcome, run.directory.model))
    if "tasks" in left:
        with step("measurement on tasks", run.directory):
            outcome = save(run, with_tasks(run, outcome, refitted))
    with suppress(OSError):  # mostly it was never there
        (run.directory.path / KEPT).unlink()
    write_report(run.directory, finished=outcome.stop)
    return outcome


def save(run: Run, outcome: Outcome) -> Outcome:
    """Keep what is known of the result in `result.json` and `report.html`; returns it."""
    write_outcome(outcome, run.directory.path)
    write_report(run.directory)
    return outcome


def tasks(path: Path, candidate: str | None, changes: dict[str, Any], view: View) -> Outcome:
    """Measure the seven tasks for a finished run, as far as they are not known, and write its result and report anew.

    Args:
        path: the run.
        candidate: whom to add to the table; None for the models of the final table.
        changes: settings of the tasks that differ from the run's.
        view: where it is shown.
    """
    with RunDirectory.open(path, exclusive=True) as directory:
        outcome = read_outcome(directory.path)
        if outcome is None or directory.status != "finished":
            raise RunDirectoryError(f"the run {path} has no result yet; go on with: {own_command('resume', path)}")
        check_candidate(directory, candidate)
        check_settings(directory, view)
        settings = make_settings({**directory.settings, **changes, "tasks": True}).anchored()
        if (suite := check_tasks(settings)) is None or not known_on_tasks(outcome, suite, candidate):
            bound = bind_result(directory, view)
            with in_sentences(settings):
                prepared = prepare(settings, directory.id, view, directory.records, bound, searches=False)
            run = Run(settings, directory, with_probes(prepared, settings, view, directory.prompts), view)
            with closing(run.prepared), refits_forgotten(directory):
                again = candidate is None and outcome.result == RECALIBRATED
                refitted = refit(run, outcome, keep=False)[1] if again else None
                outcome = with_tasks(run, outcome, refitted, candidate)
            write_outcome(outcome, directory.path)
        write_report(directory)
        return outcome


def run_search(run: Run, listeners: Listeners, drive: Drive) -> SearchState:
    """The agent's search, of which the trace, the screen and `listeners` are told.

    Raises:
        Stopped: the user ended it.
    """
    settings, loaded, view = run.prepared.placement.thinking(run.settings), run.prepared.loaded, run.view
    seeds = make_initial_population(run.bench, ARMS[settings.arm], settings.remembered)
    screen = SearchScreen(view, settings, lambda best: baselines(run.bench, best))
    bench = replace(run.bench, progress=screen.progress)
    prompts = PromptSet(settings.prompts_of_arm, run.directory.prompts)
    variables = variables_of(bench, loaded, settings)

    def record(line: TraceRecord) -> None:
        line = line.model_copy(update={"at": round(time.time(), 6)})
        for tell in (trace.write, screen.see, listeners.see):
            tell(line)

    with (
        TraceWriter(run.directory.trace) as trace,
        brain_of(run.prepared, settings, run.directory.path, view) as brain,
    ):
        thinker = Thinker(
            bench=bench,
            settings=settings,
            brain=brain,
            prompts=prompts,
            observer=Observer(settings, variables, prompts.actions, prompts.hints),
            count_tokens=counter_of(brain),
            context=room_of(brain, loaded.model.config.max_position_embeddings),
            trace=record,
            notes=lambda: [note.text for note in read_notes(run.directory.path)] if settings.reads else [],
            asked=partial(keep, run.directory.asked),
        )
        if ARMS[settings.arm].asks_brain:
            thinker.check_room(first_state(seeds, 0))
        with screen.shown():
            return drive(run, thinker, Judgement(bench, settings, record), seeds)


def drive_graph(run: Run, thinker: Thinker, judge: Judgement, seeds: list[str]) -> SearchState:
    """Run the graph of a search to its end, or on from where it was; raises Stopped."""
    control = RunControl()

    def ask() -> None:
        control.request_drain(STOPPED_BY_USER)
        with suppress(OSError, RuntimeError):  # nobody reads it, or the signal came while a line was being written
            said = "Stopping after the step in hand; a second signal (Ctrl-C) stops at once."
            run.view.tell("stopping", said, "yellow")

    def pause() -> None:
        judge.mark += wait_while_paused(run.directory.path, lambda: control.drain_requested, run.view)

    with checkpoints(run.directory.checkpoint) as saver, draining(ask):
        graph = build_graph(thinker, judge, saver)
        state = search(graph, seeds, spent_on_probes(thinker.bench), control, run.directory.id, pause)
    if state is None:
        raise Stopped(run.directory.path)
    return state


Drive = Callable[[Run, Thinker, Judgement, list[str]], SearchState]  # what takes a search through its turns
