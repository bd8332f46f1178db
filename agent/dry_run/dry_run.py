"""`--dry-run`: what a run will cost, before any weights are fetched or read; it leaves nothing behind.

Everything that a run refuses at its start is refused here in the same sentence. Then the bill: tokens and time from two
seconds of timing random tensors (machine_speed.py), memory, disk, and the first thing the brain will be asked.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from self_pruner.agent.arms import ARMS, Arm
from self_pruner.agent.dry_run.first_prompt import Opening, rehearsal
from self_pruner.agent.dry_run.machine_speed import Speed, measure_speed
from self_pruner.agent.dry_run.memory_and_disk import Bytes, disk, memory
from self_pruner.agent.dry_run.rates import Rates, Sizes
from self_pruner.agent.dry_run.schedule import rounds
from self_pruner.agent.dry_run.time_and_tokens import Estimate, estimate
from self_pruner.agent.prepare.checks import Target, check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.texts import check_tasks, check_text
from self_pruner.agent.prepare.time_budget import untimed
from self_pruner.agent.prepare.workbench import check_room, refit_memory
from self_pruner.agent.search.initial_population import all_profiles, is_probed
from self_pruner.agent.settings import Settings, SettingsError
from self_pruner.memory.database import check
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.models.bundled import TEXT_BUNDLE, cache_dir, model_folder, to_fetch
from self_pruner.tools.models.families import geometry
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.text.sources import BUNDLED, NAMES, text_source
from self_pruner.tools.text.tokens import sequences

SECONDS = 2.0  # of timing
AT_ONCE = Speed(0.0, 0.0, (0.0, 0.0), (0.0, 0.0), 1, float("inf"))  # for tokens where there is no time to tell


@dataclass(frozen=True, slots=True)
class Bill:
    """What a dry run found out."""

    settings: Settings
    target: Target
    arm: Arm
    sizes: Sizes
    speed: Speed | None  # None where not even one layer fits
    cost: Estimate
    memory: tuple[Bytes, ...]
    disk: tuple[Bytes, ...]
    opening: Opening
    to_time: int  # models to be timed for the latency table of a budget in time; where some are, the rest is a guess


def dry_run(settings: Settings) -> Bill:
    """What a run of `settings` costs.

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
    check_length_of_texts(settings, target)
    with rehearsal(settings, target, prompts) as turns:
        opening = turns.opening()
        talks = turns.talks() if arm.asks_brain else {}
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sizes = sizes_of(target)
    speed = speed_of(settings, target)
    probed = is_probed(arm, prompts)
    remembered = settings.remembered if settings.memory_path.exists() else 0
    rates = Rates(settings, sizes, speed or AT_ONCE)
    splits = max(0, len(all_profiles(target.budget)) - len(arm.founders))
    cost = estimate(rates, arm, rounds(settings, arm, remembered, splits), talks, probed)
    fetched = to_be_fetched(settings, target)
    bundled = settings.model == target.outline.name and not model_folder(settings.cache).is_dir()
    unpacked = 4 * sizes.params if bundled and target.outline.to_fetch else 0
    return Bill(
        settings=settings,
        target=target,
        arm=arm,
        sizes=sizes,
        speed=speed,
        cost=cost,
        memory=memory(settings, sizes, talks, target.device, here),
        disk=disk(settings, sizes, cost, fetched, unpacked),
        opening=opening,
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
        TooLittleTextError: the text has fewer tokens than the run wants.
    """
    for part, name, count, length, least in target.texts:
        if name.lower() not in NAMES and target.outline.tokenizer is not None:
            documents = text_source(name, part).documents
            sequences(documents, target.outline.tokenizer, count, length, f"{name} ({part} part)", least)


def sizes_of(target: Target) -> Sizes:
    """The sizes of the target model that its cost depends on."""
    shape = geometry(target.outline.model.config)
    budget = target.budget
    sequences, length = next((one.sequences, one.length) for one in target.texts if one.part == "calibration")
    params = sum(parameter.numel() for parameter in target.outline.model.parameters())
    weight = torch.empty(0, dtype=getattr(torch, target.dtype)).itemsize
    free = refit_memory(target.device)
    if target.device != "cpu":  # asked of an empty device: what the weights will leave of it
        free = max(0, free - weight * params // 2)
    return Sizes(
        space=budget.space,
        hidden=shape.hidden,
        vocab=shape.vocab,
        attention=shape.n_groups * shape.group_width,
        intermediate=shape.intermediate,
        keys=shape.n_groups * shape.head_dim,
        params=params,
        uniform=uniform(budget),
        bytes=weight,
        refit_memory=free,
        calibration=(sequences, length),
    )


def speed_of(settings: Settings, target: Target) -> Speed | None:
    """How fast this machine is at the target model's layers; None where one layer and the head do not fit."""
    model, dtype = target.outline.model, getattr(torch, target.dtype)
    try:
        return measure_speed(model, target.device, dtype, settings.sequence_length, settings.samples, SECONDS)
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


def refuse_for_lack_of_room(bill: Bill) -> None:
    """Refuse what a run would be refused for once its model is loaded.

    Raises:
        SettingsError: the Gram matrices have no room.
    """
    check_room(bill.target.outline, bill.settings.cache or cache_dir())
