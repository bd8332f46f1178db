"""The budget that the settings ask for, in units of the target model, which may be one without weights."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import KeptFileError, SettingsError
from self_pruner.tools.export.serving import Units, expressible_heads, units_for
from self_pruner.tools.latency.table import read_table
from self_pruner.tools.latency.time_budget import NANOSECONDS, JointBudget, LatencyBudget, TimedSpace
from self_pruner.tools.models.families import space_of
from self_pruner.tools.profiles.budget import Budget, parse_params
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.profiles.uniform_budget import UniformBudget


def units_of(settings: Settings, config: Any) -> Units:
    """The units that what will serve the result asks for."""
    return units_for(
        settings.target,
        config,
        mlp_unit=settings.mlp_unit,
        tensor_parallel=settings.tensor_parallel,
        bias=settings.compensation == "bias",
    )


def budget_for(settings: Settings, model: PreTrainedModel) -> Budget:
    """The budget that the settings ask for, in units of `model`, which may be one without weights.

    Raises:
        SelfPrunerError: what no profile reaches, or what the format asked for cannot express.
    """
    return budget_of(settings, space_for(settings, model), model.config)


def space_for(settings: Settings, model: PreTrainedModel) -> Space:
    """The profiles that the settings allow of `model`, which may be one without weights."""
    units = units_of(settings, model.config)
    return space_of(model, units.mlp, settings.compensation == "bias", units.attention)


def budget_of(settings: Settings, space: Space, config: Any) -> Budget:
    """The budget that the settings ask for in `space`; `config` is the dense model's."""
    if settings.in_time:
        return budget_in_time(settings, space)
    if settings.params is not None:
        budget = Budget(space, parse_params(settings.params))
    else:
        budget = Budget.from_sparsity(space, 0.2 if settings.sparsity is None else settings.sparsity)
    if settings.target != "uniform":
        return budget
    heads = expressible_heads(settings.target, config)
    units = frozenset(count // space.attention_unit for count in heads if count % space.attention_unit == 0)
    return UniformBudget(space, budget.target_params, units)


def budget_in_time(settings: Settings, space: Space) -> Budget:
    """The budget of a speed-up or of milliseconds, by the latency table that the settings name; with parameters, both.

    Raises:
        SelfPrunerError: no table, one of another model, or a target that no profile reaches.
    """
    if settings.latency_table is None:
        raise SettingsError("--speedup and --latency-ms need a latency table: python main.py latency-table measures it")
    table = read_table(settings.latency_table)
    if reason := table.timed.refuses(space):
        raise KeptFileError(f"the latency table {settings.latency_table} does not fit: {reason}")
    dense = table.dense.request(table.decode)
    milliseconds = settings.latency_ms or dense / (settings.speedup or 1.0)
    if settings.sparsity is None and settings.params is None:
        return LatencyBudget.of(space, table, milliseconds)
    plain = budget_of(settings.without_time(), space, None)
    return JointBudget(space, plain.target_params, TimedSpace(space, table), round(NANOSECONDS * milliseconds))
