"""`--dry-run`: what a run will do and cost, before any weights are fetched or read; it leaves nothing behind.

Everything that a run refuses at its start is refused here in the same sentence. Then what it costs is estimated and
shown, with the first thing that the brain will be asked.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants

from self_pruner.agent.dry_run.cost_estimate import Step, steps_of, total_seconds
from self_pruner.agent.dry_run.first_prompt import FirstPrompt, first_prompt
from self_pruner.agent.dry_run.machine_speed import Speed, measure_speed
from self_pruner.agent.dry_run.plan import Plan, plan_of
from self_pruner.agent.prepare.brain import check_brain
from self_pruner.agent.prepare.checks import Target, check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.placement import Placement, place
from self_pruner.agent.prepare.texts import check_tasks, check_text
from self_pruner.agent.prepare.time_budget import untimed
from self_pruner.agent.prepare.workers import with_workers
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.database import check
from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.models.bundled import TEXT_BUNDLE, cache_dir, to_fetch
from self_pruner.tools.text.local import BUNDLED, NAMES
from self_pruner.tools.text.quantities import duration
from self_pruner.tools.text.sources import text_source
from self_pruner.tools.text.tokens import sequences

NO_TIME = Speed(*[0.0] * 7)  # where not even one layer fits
LEAST_FILE = 1 << 20  # bytes of a file that says something of a disk
TIMED_FROM = 1 << 30  # bytes of a model whose run says its time in advance; of a smaller one the first generation does


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run found out."""

    settings: Settings
    target: Target
    plan: Plan
    speed: Speed | None  # None where not even one layer fits
    steps: list[Step]
    to_fetch: dict[str, int]  # bytes, by what they are
    prompt: FirstPrompt | None  # None where no brain is asked
    placement: Placement
    to_time: int  # models to be timed for the latency table of a budget in time; where some are, the rest is a guess


def dry_run(settings: Settings, view: View) -> DryRun:
    """What a run of `settings` does and costs.

    Raises:
        SelfPrunerError: what the run would be refused for at its start.
    """
    check_engine(settings)
    settings, to_time = untimed(settings.anchored())
    target = check_target(settings, weights=False)
    arm = ARMS[settings.arm]
    prompts = PromptSet(settings.prompts_of_arm, settings.prompts)
    prompts.check()
    check_text(settings)
    check_tasks(settings)
    check_places(settings)
    if settings.brain_url is None:  # an endpoint is not asked
        check_brain(settings, view)
    placement = place(settings, target)
    settings = placement.thinking(placement.applied(settings))
    if placement.fault is None:
        placement = with_workers(settings, placement, view)
    check_length_of_texts(settings, target)
    remembered = settings.remembered if settings.memory_path.exists() else 0
    plan = plan_of(settings, arm, prompts, target.budget, remembered)
    prompt = first_prompt(settings, target, prompts, plan) if arm.asks_brain else None
    speed = speed_of(settings, target, plan.together)
    return DryRun(
        settings=settings,
        target=target,
        plan=plan,
        speed=speed,
        steps=steps_of(settings, plan, placement, speed or NO_TIME, prompt.tokens if prompt else 0),
        to_fetch=to_be_fetched(settings, target),
        prompt=prompt,
        placement=placement,
        to_time=to_time,
    )


def say_plan(settings: Settings, target: Target, placement: Placement, view: View) -> None:
    """Where everything will be, what it takes, and of a large model how long: two lines before a run begins.

    A limit that its beginning alone goes beyond is a warning.
    """
    view.line(str(placement) + placement.brain(settings))
    settings, arm = placement.thinking(placement.applied(settings)), ARMS[settings.arm]
    prompts = PromptSet(settings.prompts_of_arm, settings.prompts)
    plan = plan_of(settings, arm, prompts, target.budget, 0)
    if warning := plan.overspent(settings):
        view.warn(warning)
    if placement.sizes.weights < TIMED_FROM:
        return
    if speed := speed_of(settings, target, plan.together):
        prompt = first_prompt(settings, target, prompts, plan).tokens if arm.asks_brain else 0
        steps = steps_of(settings, plan, placement, speed, prompt)
        longest = sorted(steps, key=lambda step: -step.seconds)[:3]
        parts = ", ".join(f"{step.what} {duration(step.seconds)}" for step in longest)
        passes = f", {sum(step.passes for step in steps)} passes over the layers" if placement.streamed else ""
        view.line(f"It takes about {duration(total_seconds(settings, steps))}{passes}; most of it: {parts}.")


def check_places(settings: Settings) -> None:
    """Refuse folders that cannot be made and a file that is no memory, as a run does, but make nothing.

    Raises:
        SelfPrunerError: the sentence of the run.
    """
    path = settings.memory_path
    if fault := _unmakeable(path.parent):
        raise SettingsError(f"--memory {path}: its folder cannot be made: {fault}")
    check(path)
    if fault := _unmakeable(settings.runs):
        raise SettingsError(f"cannot make a run directory in {settings.runs}: {fault}")


def _unmakeable(folder: Path) -> str | None:
    """Why `folder` cannot be made or written to, or None."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        return os.strerror(errno.ENOTDIR if nearest != folder else errno.EEXIST)
    return None if os.access(nearest, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def check_length_of_texts(settings: Settings, target: Target) -> None:
    """Refuse a person's own text that is too short, as far as there is a tokenizer to say so.

    Raises:
        TextError: the text has fewer tokens than the run wants.
    """
    for part, name, count, length, least in target.texts:
        if name.lower() not in NAMES and target.outline.tokenizer is not None:
            documents = text_source(name, part).documents
            sequences(documents, target.outline.tokenizer, count, length, f"{name} ({part} part)", least)


def speed_of(settings: Settings, target: Target, together: int) -> Speed | None:
    """How fast this machine is at the target model; None where one layer and the head do not fit."""
    model, dtype = target.outline.model, getattr(torch, target.dtype)
    try:
        return measure_speed(model, target.device, dtype, settings.sequence_length, together, file_to_read(settings))
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:  # what a failed allocation is on a CPU
        if "can't allocate memory" not in str(error):
            raise
        return None


def file_to_read(settings: Settings) -> Path:
    """The largest file where the checkpoint is or will be; where nothing is there yet, a library's."""
    cache, library = settings.cache or cache_dir(), Path(torch.__file__)
    for folder in (Path(settings.model), Path(constants.HF_HUB_CACHE), cache, library.parent):
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else {}
        if sizes and max(sizes.values()) > LEAST_FILE:
            return max(sizes, key=lambda path: sizes[path])
    return library


def to_be_fetched(settings: Settings, target: Target) -> dict[str, int]:
    """Bytes that a run will fetch first, by what they are."""
    found = {one.name: one.to_fetch for one in (target.outline, target.brain) if one is not None}
    texts = {one.text.lower() for one in target.texts}
    if not texts.isdisjoint(BUNDLED):
        found["texts"] = to_fetch(TEXT_BUNDLE, settings.cache)
    return {what: count for what, count in found.items() if count}
