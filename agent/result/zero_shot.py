"""The seven zero-shot tasks on the models of the final table: at the end of a run that asks for them, or afterwards.

They come last, because they take longest: the checkpoint and the other figures are there before. Every task of every
model is in the memory as soon as it is measured, so this goes on where it was stopped.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace

from self_pruner.agent.prepare.run import Run
from self_pruner.agent.result.card_facts import card_facts
from self_pruner.agent.result.checkpoint_figures import CARD, put_on_card
from self_pruner.agent.result.finish import baselines
from self_pruner.agent.result.holdout import FINISH_STEP
from self_pruner.agent.result.outcome import FOUND, RECALIBRATED, Outcome
from self_pruner.agent.result.recalibration import Recalibrated, recalibrated_memory
from self_pruner.agent.result.task_table import task_table
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.memory.no_links import refuse_link
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.export.card import model_card


def with_tasks(run: Run, outcome: Outcome, refitted: Recalibrated | None, candidate: str | None = None) -> Outcome:
    """The outcome with a zero-shot table, which then is on the model card of the checkpoint too.

    Args:
        run: the run.
        outcome: its result.
        refitted: the found profile recalibrated; None where that is not the result.
        candidate: whom to measure; None for the models of the final table.

    Raises:
        TaskDataError: the rows of a task cannot be had.
        ToolError: there is no such candidate.
    """
    bench, profile = run.bench, Profile(tuple(outcome.attention), tuple(outcome.mlp))
    with ExitStack() as stack:
        if candidate is not None:
            models = {candidate: (bench, bench.candidate(candidate).profile)}
        else:
            own = baselines(bench)
            beside = {name: own[name] for name in ("uniform", outcome.best_baseline) if name in own}
            profiles = {"dense": bench.budget.space.dense(), **beside, FOUND: profile}
            models = {name: (bench, own) for name, own in profiles.items()}
            if refitted is not None and refitted.facts.better:
                memory = stack.enter_context(closing(recalibrated_memory(bench, profile)))
                models[RECALIBRATED] = (replace(bench, elastic=refitted.elastic, memory=memory), profile)
        table = task_table(models, FINISH_STEP, run.view)
    outcome = outcome.model_copy(update={"tasks": outcome.tasks.joined(table) if outcome.tasks else table})
    folder = run.directory.model
    if outcome.verified is not None and folder.is_dir():
        refuse_link(folder)
        card = model_card(card_facts(run.prepared, run.settings, outcome, run.directory), profile, bench.budget.space)
        atomic_write(folder / CARD, str(card))
        put_on_card(folder)
    return outcome


def known_on_tasks(outcome: Outcome, suite: TaskSuite, candidate: str | None) -> bool:
    """Whether the zero-shot table has what is asked for: a candidate, or every model of the final table."""
    if outcome.tasks is None or any(outcome.tasks.data.get(task) != suite.digest(task) for task in TASKS):
        return False
    wanted = (
        {candidate} if candidate is not None else {"dense", "uniform", outcome.best_baseline, FOUND, outcome.result}
    )
    return wanted <= {row.name for row in outcome.tasks.rows if row.mean is not None}
