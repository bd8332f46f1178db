"""The seven zero-shot tasks on the models of the final table: at the end of a run that asks for them, or afterwards.

They come last, because they take longest: the checkpoint and the other figures are there before. Every task of every
model is in the memory as soon as it is measured, so this goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace

from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.card_facts import card_facts
from self_pruner.agent.result.checkpoint_figures import CARD, put_on_card
from self_pruner.agent.result.evaluate_checkpoint import Wishes, evaluate, given_to_evaluate
from self_pruner.agent.result.holdout import FINISH_STEP
from self_pruner.agent.result.outcome import FOUND, RECALIBRATED, Outcome
from self_pruner.agent.result.recalibration import Recalibrated, recalibrated_memory
from self_pruner.agent.result.task_table import task_table
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.no_links import refuse_link
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.export.card import model_card
from self_pruner.tools.workbench import Workbench


def with_tasks(
    prepared: Prepared,
    settings: Settings,
    run: RunDirectory,
    outcome: Outcome,
    models: Mapping[str, tuple[Workbench, Profile]],
    view: View,
) -> Outcome:
    """The outcome with `models` in its zero-shot table, which then is on the model card of the checkpoint too."""
    table = task_table(models, FINISH_STEP, view)
    outcome = outcome.model_copy(update={"tasks": outcome.tasks.joined(table) if outcome.tasks else table})
    if outcome.verified is not None and run.model.is_dir():
        refuse_link(run.model)
        profile = Profile(tuple(outcome.attention), tuple(outcome.mlp))
        card = model_card(card_facts(prepared, settings, outcome, run), profile, prepared.bench.budget.space)
        atomic_write(run.model / CARD, str(card))
        put_on_card(run.model)
    return outcome


def with_checkpoint(settings: Settings, run: RunDirectory, view: View) -> None:
    """Measure the checkpoint of a run that asks for tasks as it lies on the disk, beside the dense model's files.

    A machine may hold one model and not another process with the next one; then the run has its other figures, and why
    these are missing is said.
    """
    try:
        evaluate(run.model, given_to_evaluate(settings), Wishes(), view)
    except SelfPrunerError as error:
        view.warn(f"the checkpoint could not be measured in a process of its own: {error}")


@contextmanager
def models_of(
    bench: Workbench, rivals: Mapping[str, Profile], found: Profile, refitted: Recalibrated | None
) -> Iterator[dict[str, tuple[Workbench, Profile]]]:
    """The models of the final table by name; the recalibrated one where it is the result."""
    models = {"dense": bench.elastic.space.dense(), **rivals, FOUND: found}
    plain = {name: (bench, profile) for name, profile in models.items()}
    if refitted is None or not refitted.facts.better:
        yield plain
        return
    with closing(recalibrated_memory(bench, found)) as memory:
        yield {**plain, RECALIBRATED: (replace(bench, elastic=refitted.elastic, memory=memory), found)}


def known_on_tasks(outcome: Outcome, suite: TaskSuite, candidate: str | None) -> bool:
    """Whether the zero-shot table has what is asked for: a candidate, or every model of the final table."""
    if outcome.tasks is None or any(outcome.tasks.data.get(task) != suite.digest(task) for task in TASKS):
        return False
    others = {row.name for row in outcome.rows} - {RECALIBRATED}
    wanted = {candidate} if candidate is not None else others | {outcome.result}
    return wanted <= {row.name for row in outcome.tasks.rows if row.mean is not None}
