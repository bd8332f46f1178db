"""From settings to a workbench: model, text, calibration, elastic model, dense targets, probes, memory.

Everything that is expensive is kept: what follows from model and text alone in the cache, named by a digest of all that
it depends on; measurements in the memory. So a run that is resumed, or another run of the same model, is ready at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from self_pruner.agent.brain.chat_template import unusable
from self_pruner.agent.prepare.bill import (
    CPU_BATCH,
    GPU_BATCH,
    prefix_memory,
    refit_memory,
)
from self_pruner.agent.prepare.brain import asking, fingerprint_of_brain
from self_pruner.agent.prepare.checks import budget_for, budget_of, check_target, units_of
from self_pruner.agent.prepare.devices import device_name, device_of, dtype_of
from self_pruner.agent.prepare.kept import check_disk, digest, keep, named
from self_pruner.agent.prepare.latency_timer import engines_of
from self_pruner.agent.prepare.placement import Placement, placed
from self_pruner.agent.prepare.texts import read_tasks, read_texts, reporting_key, sensitivity_text
from self_pruner.agent.prepare.workers import Recipe, walk_over, with_workers
from self_pruner.agent.run_files.conditions import Conditions, conditions_of
from self_pruner.agent.run_files.run_memory import memory_of
from self_pruner.agent.settings.settings import Settings, text_label
from self_pruner.agent.view import View
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.workers.pool import Workers
from self_pruner.tools.evaluation.workers.walk import WorkersWalk
from self_pruner.tools.models.bundled import cache_dir
from self_pruner.tools.models.families import geometry
from self_pruner.tools.models.source import LoadedModel, load, resolve
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.pruning.calibration import FORMAT as CALIBRATION_FORMAT
from self_pruner.tools.pruning.calibration import Calibration, calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.importance import taylor_orders
from self_pruner.tools.pruning.store import LayerStore, ResidentLayers, SpreadLayers
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.workbench import FITNESS, Workbench

FORMAT = 2  # part of every digest: raised when what is kept changes its meaning


@dataclass(frozen=True)
class Prepared:
    """A workbench and what it was made from."""

    bench: Workbench
    loaded: LoadedModel
    texts: dict[str, str]  # digests of the texts, by what they are for
    calibration: Tensor  # token ids of the calibration text, [sequences, length]
    conditions: Conditions
    placement: Placement
    workers: Workers | None  # who measure, where it is not this process

    def close(self) -> None:
        """End the workers, which are started anew where they are needed again, and close the memory."""
        if self.workers is not None:
            self.workers.close()
        self.bench.memory.close()


def prepare(
    settings: Settings,
    run: str,
    view: View,
    records: Path | None = None,
    bind: Callable[[Conditions], None] | None = None,
    placement: Placement | None = None,
    searches: bool = True,
) -> Prepared:
    """Make the workbench of the run named `run`.

    Args:
        settings: those of the run.
        run: by which the memory knows it.
        view: where progress is shown.
        records: its own file, where it has a run directory.
        bind: told what figures depend on before anything is measured, and refuses what it must.
        placement: where the layers are to be; None to decide it now.
        searches: whether a search follows; what is done with its result needs no brain.
    """
    settings = asking(settings, searches)
    if placement is None:
        placement = placed(settings, check_target(settings), begun=True)
        view.line(str(placement))
    settings = placement.applied(settings)
    device = device_of(settings)
    dtype = dtype_of(settings, device)
    placement = with_workers(settings, placement, view)
    (room,) = placement.workers
    cache = settings.cache or cache_dir()
    source = resolve(settings.model, settings.revision)
    with view.phase(f"Loading {source.name}", unit="bytes") as progress:
        loaded = load(
            source,
            device=device,
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
            cache=cache,
            progress=progress,
            layers=not placement.streamed,
            layer_devices=placement.layer_devices,
        )
    store: LayerStore | None = None
    if loaded.files is not None:
        store = StreamedLayers(loaded.model, loaded.files)
    elif placement.layer_devices:
        store = SpreadLayers(loaded.model)
    if settings.other_brain is None and (reason := unusable(loaded.tokenizer)):
        view.warn(f"the chat template of {loaded.name} cannot be used ({reason}): prompts are plain text")
    budget_for(settings, loaded.model)  # checked before anything expensive is done
    texts, digests = read_texts(settings, loaded, device, view)
    tokens = {name: digest(ids) for name, ids in texts.items()}
    brain = fingerprint_of_brain(settings, view)
    conditions = conditions_of(loaded, device, dtype, tokens, settings.memory_path, brain)
    if bind is not None:
        bind(conditions)
    key = {"format": FORMAT, "model": loaded.fingerprint, "dtype": dtype, "text": digest(texts["calibration"])}
    with view.phase("Calibration") as progress:
        path = cache / "calibration" / f"{named({**key, 'file': CALIBRATION_FORMAT})}.safetensors"
        if not path.exists():
            check_disk(loaded.name, placement.sizes.shape.gram_bytes, cache)
        apart = path if placement.grams_on_disk else None
        states = None if placement.states is None else "cpu"
        batch = CPU_BATCH if device == "cpu" else GPU_BATCH
        calibration = keep(
            path,
            Calibration,
            lambda: calibrate(
                loaded.model,
                texts["calibration"],
                batch=batch,
                progress=progress,
                store=store,
                path=apart,
                states=states,
            ),
            view,
        )
    with view.phase("Elastic model"):
        units = units_of(settings, loaded.model.config)
        cut: dict[str, Any] = {
            "importance": settings.importance,
            "compensation": settings.compensation,
            "mlp_unit": units.mlp,
            "attention_unit": units.attention,
        }
        refits = sum(
            refit_memory(each, placement.reserved(each), placement.streamed)
            for each in set(placement.layer_devices) or {device}
        )
        orders = None
        if settings.importance == "taylor":
            layers, groups = store or ResidentLayers(loaded.model), geometry(loaded.model.config).n_groups
            orders = taylor_orders(loaded.model, layers, texts["calibration"], groups)
        elastic = ElasticModel(
            loaded.model, calibration, **cut, refit_memory=refits, store=store, states=states, orders=orders
        )
        budget = budget_of(settings, elastic.space, loaded.model.config)
    reporting = {name: f"reporting {digests[reporting_key(name)]}" for name in settings.reporting_texts}
    searched = settings.sequences(settings.fidelity[-1])
    measured = {FITNESS: "fitness", **{text: reporting_key(name) for name, text in reporting.items()}}
    paths = {
        name: cache / "targets" / f"{named({**key, 'text': digest(texts[text])})}.safetensors"
        for name, text in measured.items()
    }
    targets = {name: dense_targets(elastic, texts[text], paths[name], text, view) for name, text in measured.items()}
    workers = None
    if room is None:
        kept = prefix_memory(device, placement.reserved(device))
        walks = {
            name: walk_over(elastic, targets[name], name, searched, kept, placement.state_memory) for name in measured
        }
    else:
        kind = device.partition(":")[0]
        recipe = Recipe(
            checkpoint=loaded.folder,
            fingerprint=loaded.fingerprint,
            device=kind,
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
            streamed=placement.streamed,
            calibration=path,
            cut=cut,
            orders=elastic.orders,
            targets=paths,
            searched=searched,
        )
        workers = Workers(room, settings.ray_address, kind, recipe, view.warn)
        view.line(f"{room.workers} workers measure, {workers.where}")
        walks = {name: WorkersWalk(elastic, targets[name], workers, name) for name in measured}
    context = {
        **key,
        "importance": settings.importance,
        "compensation": settings.compensation,
        "mlp_unit": elastic.space.mlp_unit,
        **({"attention_unit": units.attention} if units.attention > 1 else {}),
        "fitness": digests["fitness"],  # of the whole text: how much of it is measured is up to each run
        "length": settings.sequence_length,
    }
    family = described(elastic.space, loaded.family.model_type)
    description = {**context, "model": loaded.name, "weights": loaded.fingerprint, **family}
    memory = memory_of(settings.memory_path, run, records, named(context), description, view)
    engine, served = engines_of(settings, loaded.model.config, elastic.space)
    bench = Workbench(
        elastic=elastic,
        budget=budget,
        walks=walks,
        memory=memory,
        reporting={text_label(name): text for name, text in reporting.items()},
        run=run,
        **measuring(settings),
        **sensitivity_text(settings, len(texts["fitness"])),
        device_name=device_name(device),
        engine=engine,
        served=served,
        tasks=read_tasks(settings, loaded.tokenizer, view),
    )
    for sentence in elastic.warnings:
        view.warn(sentence)
    if settings.fitness_tokens > settings.ranking_tokens and not bench.sensitivity_start:
        view.warn("the fitness text is too short for sensitivities on tokens of their own: they share the ranked ones")
    return Prepared(bench, loaded, digests, texts["calibration"], conditions, placement, workers)


def described(space: Space, family: str) -> dict[str, object]:
    """What a memory says of a model, so that the lessons of its runs can be carried over to another one."""
    return {
        "family": family,
        "layers": space.n_layers,
        "fixed_params": space.fixed_params,
        "prunable_params": space.prunable_params(space.dense()),
    }


def measuring(settings: Settings) -> dict[str, Any]:
    """The fields of a workbench that are settings: how much is measured and from which seed."""
    return {
        "seed": settings.seed,
        "sequence_length": settings.sequence_length,
        "fidelity": settings.fidelity,
        "probe_tokens": settings.probe_tokens,
        "holdout": range(settings.sequences(settings.fidelity[-1]), settings.sequences(settings.ranking_tokens)),
        "latency": {
            "prompt_tokens": settings.latency_prompt,
            "decode_tokens": settings.latency_decode,
            "repeats": settings.latency_repeats,
            "batch": settings.latency_batch,
        },
    }


def dense_targets(elastic: ElasticModel, ids: Tensor, path: Path, text: str, view: View) -> DenseTargets:
    """What the dense model says about one text, from the cache or made now."""
    with view.phase(f"Dense targets, {text}") as progress:
        return keep(
            path, DenseTargets, lambda: DenseTargets.build(elastic, elastic.store, ids, progress=progress), view
        )
