"""A run with a budget in time: the table it searches by, and whether what it found is as fast as was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from self_pruner.agent.prepare.checks import space_for
from self_pruner.agent.prepare.latency_table import kept_table, shape_of, table_path, timed_of
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Latency
from self_pruner.tools.latency.speed_facts import SpeedFacts
from self_pruner.tools.latency.table import LatencyTable, read_table, wanted_profiles
from self_pruner.tools.latency.time_budget import TimedSpace
from self_pruner.tools.profiles.space import Space


def with_table(settings: Settings, view: View) -> Settings:
    """The settings with the latency table that their budget needs, which is measured now where none is kept."""
    if not settings.in_time or settings.latency_table is not None:
        return settings
    model = shape_of(settings)
    path, _ = kept_table(settings, model.config, space_for(settings, model), view)
    return settings.model_copy(update={"latency_table": path})


def untimed(settings: Settings) -> tuple[Settings, int]:
    """For what a run would cost: the settings with a table that is kept, else with parameters in the place of time.

    Returns:
        The settings, and how many models are to be timed before such a run, 0 where none.
    """
    if not settings.in_time or settings.latency_table is not None:
        return settings, 0
    model = shape_of(settings)
    space = space_for(settings, model)
    path = table_path(settings, model.config, space)
    if path.is_file():
        return settings.model_copy(update={"latency_table": path}), 0
    plain = settings.without_time()
    if settings.params is None and settings.sparsity is None and settings.speedup is not None:
        # as if time went with parameters
        wanted = max(round(space.params(space.dense()) / settings.speedup), space.params(space.smallest()))
        plain = plain.model_copy(update={"params": str(wanted)})
    return plain, len(wanted_profiles(space, settings.engine == "vllm"))


def keep_with(run: RunDirectory, settings: Settings) -> Settings:
    """The settings with the run's own copy of the latency table: the budget stays what it was, whatever is measured."""
    if settings.latency_table is None:
        return settings
    atomic_write(run.latency_table, settings.latency_table.read_text(encoding="utf-8"))
    return settings.model_copy(update={"latency_table": run.latency_table})


def speed_facts(
    prepared: Prepared, settings: Settings, found: Profile, timings: Mapping[Profile, Latency]
) -> SpeedFacts | None:
    """Asked, predicted and measured; None without a budget in time.

    Args:
        prepared: the workbench of the run.
        settings: those of the run.
        found: the profile that was found.
        timings: what was measured of profiles at the end.
    """
    if not settings.in_time or settings.latency_table is None:
        return None
    table = read_table(settings.latency_table)
    dense = table.dense.request(table.decode)
    timed = TimedSpace(prepared.bench.budget.space, table)  # as the budget sees it
    values = timings[found].values if found in timings else {}
    here = same_conditions(table, settings, prepared.bench.budget.space)
    return SpeedFacts(
        asked=settings.speedup or dense / (settings.latency_ms or dense),
        predicted=timed.dense / timed.time(found),
        measured=values.get("speedup") if here else None,
        spread=max(values["decode_spread"], values["prefill_spread"]) if here and values else None,
        table=table.setting,
    )


def same_conditions(table: LatencyTable, settings: Settings, space: Space) -> bool:
    """Whether a measurement made now is of what the table predicts: engine, devices, type, request, biases."""
    return str(timed_of(settings, space)) == str(table.timed)
