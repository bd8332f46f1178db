"""The found profile recalibrated, and whether that is what the run results in.

All candidates of a search share the refits of one calibration; the one that was found gets refits of its own. That need
not help, so both are measured on tokens that the search never saw, and the better one is the result. Scores of
recalibrated weights are remembered apart from all others, in a context that names the profile.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from self_pruner.agent.prepare.kept import named
from self_pruner.agent.prepare.run import Run
from self_pruner.agent.result.holdout import FINISH_STEP, holdout_fitness
from self_pruner.agent.result.outcome import FOUND, RECALIBRATED, Recalibration, Row, TextRow, row_of
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.errors import KeptFileError, MeasurementError, SelfPrunerError
from self_pruner.memory.no_links import refuse_link
from self_pruner.memory.profile import Profile
from self_pruner.memory.store import Memory
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.pruning.compensation import Recalibration as Refits
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import SHARE, load_refits, recalibrate, recalibration_bytes, refit_bytes
from self_pruner.tools.pruning.store import device_of
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.text.quantities import size
from self_pruner.tools.workbench import Workbench

CPU_TOKENS, GPU_TOKENS = 4096, 16384  # in one forward pass
KEPT = "refits.safetensors"  # in the run's directory, from the recalibration until the checkpoint is written
FORMAT = 3  # part of the context of the scores: raised when recalibration changes


@dataclass(frozen=True)
class Recalibrated:
    """What recalibrating the found profile gave."""

    facts: Recalibration
    elastic: ElasticModel  # the better one: recalibrated, or as it was
    rows: dict[str, Row] = field(default_factory=dict)  # of the recalibrated weights, by reporting text, main one first

    def beside(self, rows: Sequence[Row]) -> list[Row]:
        """The final table with its row, where it was measured."""
        if not self.rows:
            return list(rows)
        found = next(row for row in rows if row.name == FOUND)
        # the same shapes take the same time, so it is not timed again
        timed = found.model_dump(include={"prefill_ms", "decode_ms", "tokens_per_second", "speedup"})
        return [*rows, next(iter(self.rows.values())).model_copy(update=timed)]

    def by_text(self) -> list[TextRow]:
        """Its figures on every reporting text."""
        return [TextRow.of(name, row) for name, row in self.rows.items()]


def recalibrated(run: Run, found: Profile, *, keep: bool = False) -> Recalibrated | None:
    """Recalibrate `found` and measure it on the holdout and on reporting text; None where it was not asked for.

    Where the run has kept the refits of an earlier call they are taken, and what is remembered is not measured again. A
    recalibration that is refused, as where there is too little room for it, is a fact of the result and not the end
    of the run. One that main memory or the disk fails in the middle of is neither: it can be made once there is room.

    Args:
        run: the run.
        found: the profile.
        keep: whether to keep the refits in the run's directory for as long as they may be the result's.
    """
    settings, bench, elastic = run.settings, run.bench, run.bench.elastic
    if not settings.recalibrates:
        return None
    refuse_link(run.directory.path / KEPT)
    searched = holdout_fitness(bench, [found]).get(found)
    try:
        refits = refits_of(run, found, keep)
    except (SelfPrunerError, torch.OutOfMemoryError) as error:
        reason = str(error).partition("\n")[0]
        return Recalibrated(Recalibration(searched=searched, recalibrated=None, failure=reason), elastic)
    other = elastic.recalibrated(refits)
    with closing(recalibrated_memory(bench, found)) as memory:
        own = replace(bench, elastic=other, memory=memory, walks=walks_of(bench, other))
        with run.view.phase("Holdout, recalibrated") as progress:
            fitness = holdout_fitness(own, [found], progress).get(found)
        rows = {}
        for name, text in bench.reporting.items():
            with run.view.phase(f"Reporting text {name}, recalibrated") as progress:
                sequences = range(settings.sequences(settings.reporting_tokens))
                measure(replace(own, progress=progress), [found], sequences, FINISH_STEP, text)
            rows[name] = row_of(own, RECALIBRATED, found, text)
        failure = None if fitness is not None else own.failure(found)
    facts = Recalibration(searched=searched, recalibrated=fitness, failure=failure)
    return Recalibrated(facts, other if facts.better else elastic, rows)


def refits_of(run: Run, found: Profile, keep: bool) -> Refits:
    """The refits of `found`: those that the run has kept, or made now and kept where they can be.

    Raises:
        SelfPrunerError: they cannot be made.
    """
    bench, elastic, path = run.bench, run.bench.elastic, run.directory.path / KEPT
    made_for = recalibrated_context(bench.memory.context, found)
    try:
        if (known := load_refits(path, made_for, elastic, found)) is not None:
            return known
    except KeptFileError as error:
        run.view.warn(f"{error}; it is made anew")
    for walk in bench.walks.values():
        walk.give_up_memory()  # the search is over, and the bill counts on its room
    with run.view.phase("Recalibration") as progress:
        file = path if on_disk(run, found, keep) else None
        check_room(elastic, found, in_memory=file is None)
        ids = pieces(run.prepared.calibration, run.settings.sequence_length)
        batch = max(1, (CPU_TOKENS if elastic.device.type == "cpu" else GPU_TOKENS) // ids.shape[1])
        return recalibrate(elastic, found, ids, batch=batch, progress=progress, path=file, made_for=made_for)


def on_disk(run: Run, found: Profile, keep: bool) -> bool:
    """Whether the refits of `found` go to the run's directory as they are made.

    Those of a streamed model have no place else. Others are kept there for a run that is stopped before its checkpoint
    is written, unless that would take its room: without them it only takes longer.

    Raises:
        MeasurementError: there is no room for those of a streamed model.
    """
    elastic, folder = run.bench.elastic, run.directory.path
    needed, free = refit_bytes(elastic, [found], full=True), shutil.disk_usage(folder).free
    if isinstance(elastic.store, StreamedLayers):
        if needed > free:
            raise MeasurementError(f"its refits need {size(needed)} of disk in {folder}, and {size(free)} are free")
        return True
    checkpoint = sum(weight.nbytes for weight in elastic.model.parameters())  # no larger than the dense model
    if keep and free < checkpoint + needed:
        run.view.warn(f"there is no room to keep {KEPT} beside the checkpoint: a stopped run recalibrates again")
    return keep and free >= checkpoint + needed


@contextmanager
def refits_forgotten(directory: RunDirectory) -> Iterator[None]:
    """Those that the block leaves in a run's directory are removed at its end, if the run is finished."""
    try:
        yield
    finally:
        if directory.status == "finished":
            with suppress(OSError):  # mostly they were never there
                (directory.path / KEPT).unlink()


def pieces(text: Tensor, length: int) -> Tensor:
    """Calibration text [sequences, tokens] in sequences of `length`, as candidates are measured; shorter ones stay.

    A sequence's first state, where attention rests, is far larger than the others and weighs heavily in every refit.
    Few long sequences have few of them: refits on 16 sequences of 2,048 tokens failed on single passages that begin
    otherwise (benchmarks/results/recalibration-50.json), refits on the same text in 64 sequences did not.
    """
    if text.shape[1] <= length:
        return text
    return text[:, : text.shape[1] // length * length].reshape(-1, length)


def recalibrated_context(context: str, profile: Profile) -> str:
    """The context of the memory that holds the scores of `profile` recalibrated; `context` is that of the search."""
    return named({"context": context, "recalibration": FORMAT, "share": SHARE, "profile": profile.key()})


def recalibrated_memory(bench: Workbench, profile: Profile) -> Memory:
    """What is remembered of `profile` recalibrated; to be closed."""
    context = recalibrated_context(bench.memory.context, profile)
    description = {"recalibrated": profile.key(), "context": bench.memory.context, "share": SHARE}
    return bench.memory.sibling(context, description)


def check_room(elastic: ElasticModel, profile: Profile, in_memory: bool) -> None:
    """Refuse before the work what would not fit beside the model: a place at work on every device that computes.

    The refits are in main memory, if they are held in memory.

    Raises:
        MeasurementError: says how much memory is needed and how much there is.
    """
    computing = {device_of(layer) for layer in elastic.model.get_decoder().layers}
    computing = {elastic.device if device.type == "meta" else device for device in computing}  # layers in files
    needed = dict.fromkeys(map(str, computing), recalibration_bytes(elastic))
    if in_memory:
        needed["cpu"] = needed.get("cpu", 0) + refit_bytes(elastic, [profile], full=True)
    for device, count in needed.items():
        if count > (free := free_memory(device)):
            where = "" if device == "cpu" else f" on {device}"
            raise MeasurementError(f"its refits need {size(count)} of memory{where}, and {size(free)} are free")


def walks_of(bench: Workbench, elastic: ElasticModel) -> dict[str, PopulationWalk]:
    """The walks of `bench` on another elastic model, on the same text beside the same dense targets."""
    return {
        name: PopulationWalk(
            elastic, elastic.store, walk.targets, walk.input_ids, state_memory=walk.state_memory, prefix_memory=0
        )
        for name, walk in bench.walks.items()
    }
