"""What can be refused before any weights are fetched or read: budget and all that follows from settings and config.

A run and a dry run both begin here, so a mistake is the same sentence in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.prepare.latency_timer import check_expressible
from self_pruner.agent.prepare.texts import Wanted, wanted_texts
from self_pruner.agent.settings.panels import BRAINS
from self_pruner.agent.settings.settings import DEFAULT_SPARSITY, Settings
from self_pruner.memory.database import connect
from self_pruner.memory.errors import KeptFileError, SelfPrunerError, SettingsError
from self_pruner.tools.export.serving import Units, expressible_heads, units_for
from self_pruner.tools.latency.joint_budget import JointBudget
from self_pruner.tools.latency.table import read_table
from self_pruner.tools.latency.time_budget import NANOSECONDS, LatencyBudget, TimedSpace
from self_pruner.tools.models.families import space_of
from self_pruner.tools.models.outline import ModelOutline, outline
from self_pruner.tools.models.source import pinned, resolve
from self_pruner.tools.profiles.budget import Budget, parse_params
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.profiles.uniform_budget import UniformBudget

LONGEST_NS = 10**18  # that a target in time may be: what is longer is a slip


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
        budget = Budget.from_sparsity(space, DEFAULT_SPARSITY if settings.sparsity is None else settings.sparsity)
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
    if reason := table.timed.refuses(space, settings.tensor_parallel, settings.compensation == "bias"):
        raise KeptFileError(f"the latency table {settings.latency_table} does not fit: {reason}")
    dense = table.dense.request(table.decode)
    milliseconds = settings.latency_ms or dense / (settings.speedup or 1.0)
    if not 1 <= NANOSECONDS * milliseconds <= LONGEST_NS:
        raise SettingsError(
            f"{milliseconds:g} ms is no time of a request that takes the dense model {dense:,.1f} ms: "
            "name one nearer to it"
        )
    if settings.sparsity is None and settings.params is None:
        return LatencyBudget.of(space, table, milliseconds)
    plain = budget_of(settings.without_time(), space, None)
    return JointBudget(space, plain.target_params, TimedSpace(space, table), round(NANOSECONDS * milliseconds))


@dataclass(frozen=True, slots=True)
class Target:
    """What a run is about, known without a weight."""

    outline: ModelOutline
    device: str
    dtype: str
    budget: Budget
    texts: list[Wanted]
    brain: ModelOutline | None  # of another model that is asked here


def at_commit(settings: Settings) -> Settings:
    """The settings with the commit that the revision of a hub model stands for now, which a resumed run goes on with.

    A brain from the hub is named `org/name@commit` from then on.

    Raises:
        SelfPrunerError: an unknown model, or one that the hub does not have.
    """
    source = pinned(resolve(settings.model, settings.revision, weights=False))
    update = {} if source.commit is None else {"revision": source.commit, "model": settings.model.partition("@")[0]}
    if settings.other_brain is not None:
        with _of_brain():
            brain = pinned(resolve(settings.other_brain, weights=False))
        update |= {} if brain.commit is None else {"brain": f"{brain.location}@{brain.commit}"}
    return settings.model_copy(update=update) if update else settings


def check_target(settings: Settings, *, weights: bool = True) -> Target:
    """The target model's outline and its budget; refuses what no weights could mend.

    Args:
        settings: the settings of the run.
        weights: refuse a folder without weights; else the tokenizer is wanted instead, to say what a run will cost,
            and the hub is not asked for shapes that are published.

    Raises:
        SelfPrunerError: an unknown or unsupported model, a device that is not there, an MLP unit that does not fit, a
            sparsity or parameter count that no profile reaches, a length beyond the model's context, a model that the
            engine of latencies cannot run.
    """
    source = resolve(settings.model, settings.revision, weights)
    device = device_of(settings)
    known = outline(
        source,
        tokenizer=not weights,
        trust_remote_code=settings.trust_remote_code,
        cache=settings.cache,
        published=not weights,
    )
    check_expressible(settings, known.model.config)
    budget = budget_for(settings, known.model)
    texts = wanted_texts(settings, known.model.config.max_position_embeddings, device)
    brain = _other_brain(settings, weights)
    return Target(known, device, dtype_of(settings, device), budget, texts, brain)


def _other_brain(settings: Settings, weights: bool) -> ModelOutline | None:
    """The outline of a brain that is another model in this process; raises as `check_target` of a model."""
    if settings.other_brain is None:
        return None
    with _of_brain():
        return outline(
            resolve(settings.other_brain, weights=weights),
            tokenizer=not weights,
            trust_remote_code=settings.trust_remote_code,
            cache=settings.cache,
            published=not weights,
        )


@contextmanager
def _of_brain() -> Iterator[None]:
    """Faults of a model are said to be those of the brain."""
    try:
        yield
    except SelfPrunerError as error:
        raise SettingsError(f"--brain is {', '.join(BRAINS)} or a model, and: {error}") from error


def check_memory(path: Path) -> None:
    """Find a file that is no memory now, not after the calibration."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--memory {path}: its folder cannot be made: {error.strerror}") from error
    connect(path).close()
