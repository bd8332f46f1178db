"""`--dry-run`: what a run will do and cost, before any weights are fetched or read; it leaves nothing behind.

Everything that a run refuses at its start is refused here in the same sentence. Then what it costs is estimated and
shown, with the first thing that the brain will be asked.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from self_pruner.agent.dry_run.cost_estimate import Bytes, Sizes, Step, bytes_of, steps_of
from self_pruner.agent.dry_run.first_prompt import FirstPrompt, first_prompt
from self_pruner.agent.dry_run.machine_speed import Speed, measure_speed
from self_pruner.agent.dry_run.plan import Plan, plan_of
from self_pruner.agent.prepare.brain import check_brain
from self_pruner.agent.prepare.checks import Target, check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.placement import Placement, place
from self_pruner.agent.prepare.room import check_room, refit_memory
from self_pruner.agent.prepare.texts import check_tasks, check_text
from self_pruner.agent.prepare.time_budget import untimed
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.database import check
from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.models.bundled import TEXT_BUNDLE, cache_dir, model_folder, to_fetch
from self_pruner.tools.models.families import geometry
from self_pruner.tools.text.sources import BUNDLED, NAMES, text_source
from self_pruner.tools.text.tokens import sequences

NO_TIME = Speed(0.0, 0.0, 0.0)  # where not even one layer fits


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run found out."""

    settings: Settings
    target: Target
    plan: Plan
    sizes: Sizes
    speed: Speed | None  # None where not even one layer fits
    steps: list[Step]
    bytes: list[Bytes]
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
    if placement.streamed and settings.engine == "torch":
        settings = settings.model_copy(update={"benchmarks": 0})
    check_length_of_texts(settings, target)
    remembered = settings.remembered if settings.memory_path.exists() else 0
    plan = plan_of(settings, arm, prompts, target.budget, remembered)
    prompt = first_prompt(settings, target, prompts, plan) if arm.asks_brain else None
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sizes, speed = sizes_of(target), speed_of(settings, target, plan.together)
    fetched = to_be_fetched(settings, target)
    bundled = settings.model == target.outline.name and not model_folder(settings.cache).is_dir()
    unpacked = 4 * sizes.params if bundled and target.outline.to_fetch else 0
    return DryRun(
        settings=settings,
        target=target,
        plan=plan,
        sizes=sizes,
        speed=speed,
        steps=steps_of(settings, plan, sizes, speed or NO_TIME, prompt.tokens if prompt else 0),
        bytes=bytes_of(settings, sizes, placement, target.device, here, sum(fetched.values()) + unpacked),
        to_fetch=fetched,
        prompt=prompt,
        placement=placement,
        to_time=to_time,
    )


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


def sizes_of(target: Target) -> Sizes:
    """The sizes of the target model that its cost depends on."""
    text = next(one for one in target.texts if one.part == "calibration")
    params = sum(parameter.numel() for parameter in target.outline.model.parameters())
    itemsize = getattr(torch, target.dtype).itemsize
    free = refit_memory(target.device)
    if target.device != "cpu":  # asked of an empty device: what the weights will leave of it
        free = max(0, free - itemsize * params // 2)
    shape = geometry(target.outline.model.config)
    return Sizes(shape, target.budget, params, itemsize, text.sequences * text.length, free)


def speed_of(settings: Settings, target: Target, together: int) -> Speed | None:
    """How fast this machine is at the target model; None where one layer and the head do not fit."""
    model, dtype = target.outline.model, getattr(torch, target.dtype)
    try:
        return measure_speed(model, target.device, dtype, settings.sequence_length, together)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:  # what a failed allocation is on a CPU
        if "can't allocate memory" not in str(error):
            raise
        return None


def to_be_fetched(settings: Settings, target: Target) -> dict[str, int]:
    """Bytes that a run will fetch first, by what they are."""
    found = {target.outline.name: target.outline.to_fetch}
    texts = {one.text.lower() for one in target.texts}
    if not texts.isdisjoint(BUNDLED):
        found["texts"] = to_fetch(TEXT_BUNDLE, settings.cache)
    return {what: count for what, count in found.items() if count}


def refuse_for_lack_of_room(found: DryRun) -> None:
    """Refuse what a run would be refused for before its model is loaded.

    Raises:
        SettingsError: the weights or the Gram matrices have no room.
    """
    check_room(found.target.outline, found.settings.cache or cache_dir(), in_memory=not found.placement.streamed)
    if found.placement.fault:
        raise SettingsError(found.placement.fault)
