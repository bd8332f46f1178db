"""Carries out a comparison: every planned run in a directory of its own, from the same measurements, at equal cost.

Model, calibration, dense targets and probes are made once and shared. Each run has a memory of its own, into which the
probes it starts from are written as if it had measured them, so it is charged for them; nothing else that one arm
measured for its search is known to another. A comparison that was stopped or killed goes on where it was, run by run
and step by step.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.compare.joining import bind_comparison, check_bound, check_prompts
from self_pruner.agent.compare.of_run import dense_result, run_result
from self_pruner.agent.compare.page import write_finished
from self_pruner.agent.compare.plan import PlannedRun
from self_pruner.agent.compare.results import Results
from self_pruner.agent.prepare.brain import SELF, asks_itself
from self_pruner.agent.prepare.checks import budget_of, check_target
from self_pruner.agent.prepare.devices import device_of
from self_pruner.agent.prepare.placement import placed
from self_pruner.agent.prepare.run import in_sentences, with_probes
from self_pruner.agent.prepare.workbench import Prepared, measuring, prepare
from self_pruner.agent.report.stopping import heeding
from self_pruner.agent.run_files.binding import keep_prompts
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.run_files.run_directory import NoRunError, RunDirectory
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.run_files.run_memory import memory_of
from self_pruner.agent.search.initial_population import PROBE_STEP, probe_uniform, probed
from self_pruner.agent.session import Stopped, carry_out
from self_pruner.agent.settings.arms import ARMS, Arm
from self_pruner.agent.settings.panels import BRAINS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.no_links import refuse_link
from self_pruner.memory.records import Score
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.workbench import FITNESS

SHARED_MEMORY = "shared.sqlite"


def carry_out_all(comparison: ComparisonFolder, view: View) -> Results:
    """Every run that is not finished yet, one after another; the page is written anew after each.

    Several processes may do this in one folder: each takes runs that no other has in hand.
    """
    check_prompts(comparison)
    missing: dict[str, str] = {}
    groups: dict[tuple[Any, ...], list[PlannedRun]] = {}  # runs that can share one preparation
    for run in comparison.planned():
        groups.setdefault(run.preparation, []).append(run)
    for group in groups.values():
        if all(comparison.record_path(run) for run in group):
            continue
        settings = next((run.settings for run in group if asks_itself(run.settings)), group[0].settings)
        with in_sentences(settings):
            shared = share(comparison, settings, view)
        with closing(shared):
            bind_comparison(comparison, settings, shared)
            comparison.keep_dense(dense_result(shared))
            for run in group:
                if comparison.record_path(run) is None:
                    known = run.settings.to_toml()
                    view.tell("run", f"\n{run.slug}: {run.meaning}", "bold", run=run.slug, settings=known)
                    try:
                        check_prompts(comparison, arm=run.spec.text)  # files may have changed meanwhile
                        one(comparison, run, shared, view)
                    except Stopped:
                        raise Stopped(comparison.path) from None
                    except (SelfPrunerError, FloatingPointError) as error:
                        missing[run.slug] = str(error)
                        view.warn(f"{run.slug}: {error}")
                    write_finished(comparison.path, missing)
    return write_finished(comparison.path, missing)


def share(comparison: ComparisonFolder, settings: Settings, view: View) -> Prepared:
    """Model, calibration, dense targets and probes for all runs with the preparation of `settings`."""
    refuse_link(comparison.path / SHARED_MEMORY)
    asked = settings.other_brain or (settings.brain if settings.brain in BRAINS else SELF)
    brain = asked if ARMS[settings.arm].asks_brain else SELF  # the group's, and not that of arms in another
    changes = {"memory": comparison.path / SHARED_MEMORY, "arm": "hybrid", "brain": brain}
    settings = settings.model_copy(update=changes)

    def bind(conditions: Conditions) -> None:
        check_bound(comparison, settings, conditions, view)

    placement = placed(settings, check_target(settings))
    prepared = prepare(settings, "shared", view, bind=bind, placement=placement)
    return with_probes(prepared, settings, view, settings.prompts)


def one(comparison: ComparisonFolder, planned: PlannedRun, shared: Prepared, view: View) -> None:
    """Carry out one run, from its beginning or from where it was, and write its record."""
    folder = comparison.folder_of(planned)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_link(folder / "memory.sqlite")
    settings = planned.settings.model_copy(update={"runs": folder, "memory": folder / "memory.sqlite"})
    description = {"comparison": str(comparison.path)}
    with (
        closing(RunLock(folder)),  # keeps other processes from starting the same run
        opened(folder, settings) as run,
        heeding(run.path),
        closing(
            memory_of(settings.memory_path, run.id, run.records, shared.bench.memory.context, description, view)
        ) as memory,
    ):
        bench = replace(
            shared.bench,
            budget=budget_of(settings, shared.bench.elastic.space, shared.loaded.model.config),
            memory=memory,
            run=run.id,
            probes=(),
            **measuring(settings),
        )
        prepared = replace(shared, bench=bench)
        lend(shared, prepared, planned.spec.arm)
        outcome = carry_out(settings, run, view, prepared)
        result = run_result(planned, prepared, run, outcome, str(run.path.relative_to(comparison.path)))
        comparison.keep(planned, result)
        copy_reporting(prepared, shared)  # whoever measured them, they would be the same


def opened(folder: Path, settings: Settings) -> RunDirectory:
    """The run directory in `folder`, made where there is none yet."""
    try:
        run = RunDirectory.open(RunDirectory.latest(folder), exclusive=True)
        run.set_status("running")
    except NoRunError:
        device = device_of(settings)
        run = RunDirectory.create(folder, settings.model, settings.to_toml(), device=device, seed=settings.seed)
    keep_prompts(run, settings)
    return run


def lend(shared: Prepared, own: Prepared, arm: Arm) -> None:
    """Write the probes into a run's memory as its own measurements, and all reporting scores as they are."""
    lent = {profile: own.bench.probe_tokens for profile in probed(shared.bench)}
    if arm.asks_brain:  # its prompts quote it
        probe_uniform(replace(shared.bench, budget=own.bench.budget, fidelity=own.bench.fidelity))
        lent[uniform(own.bench.budget)] = own.bench.fidelity[0]
    for profile, tokens in lent.items():
        sequences = range(tokens // own.bench.sequence_length)
        scores = [score for index, score in shared.bench.scores(profile, FITNESS).items() if index in sequences]
        own.bench.memory.record(*(replace(score, run=own.bench.run, step=PROBE_STEP) for score in scores))
    copy_reporting(shared, own)


def copy_reporting(source: Prepared, target: Prepared) -> None:
    """Copy all scores on reporting texts from one memory to another."""
    for text in source.bench.reporting.values():
        scores = source.bench.memory.recall(Score, text=text)
        target.bench.memory.record(*(score for score in scores if score.error is None))
