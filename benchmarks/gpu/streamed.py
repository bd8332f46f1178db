"""Streamed: a model of the giant's layers that stay in their files, under a cap that they would not fit.

The cap is 80 GB for all layers of the giant, and its share for fewer, so that it is as short for them. Scores are
compared with those of the same layers in memory, where they fit; they are to be the same numbers. What a pass over the
layers moves a second stands beside a copy of one layer from pinned memory, which nothing can beat.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bandwidth import REPEATS, layer_bytes
from benchmarks.gpu.device import Device, random_numbers
from benchmarks.gpu.profiles import Shapes
from benchmarks.gpu.record import Deadline, Record, Row, rounded
from benchmarks.population.work import generation
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.latency.shapes import NUMBERS, fill, meta_model, random_model
from self_pruner.tools.models.tensor_files import TensorFiles, TensorWriter
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning.calibration import Calibration, calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import put
from self_pruner.tools.pruning.streamed import StreamedLayers

CAP = 80e9  # bytes, for all layers of the giant
CANDIDATES = 6
SHARE = 0.85  # of the bandwidth of pinned memory that a pass is to reach
ROOM = 0.8  # of the free memory that layers in memory may take


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """Write the layers, score candidates with them in memory and streamed, and compare."""
    count, cap = shapes.streamed, CAP * shapes.streamed / shapes.layers
    record.set(layers=count, of=shapes.layers, cap_bytes=cap)
    pinned = _pinned_rate(device, layer_bytes(shapes))
    record.set(pinned_bytes_per_second=rounded(pinned))
    with tempfile.TemporaryDirectory(prefix="self-pruner-gpu-") as folder:
        _Streamed(record, device, shapes, count, pinned).run(Path(folder) / "layers.safetensors", cap, deadline)


def _pinned_rate(device: Device, size: int) -> float:
    """Bytes a second of a copy of one layer from pinned memory."""
    source = torch.ones(size, dtype=torch.uint8)
    source = source.pin_memory() if device.is_cuda else source
    target = torch.empty(size, dtype=torch.uint8, device=device.torch)
    return size / min(device.repeat(lambda: target.copy_(source, non_blocking=True), REPEATS))


class _Streamed:
    """One model, in memory and in its file."""

    def __init__(self, record: Record, device: Device, shapes: Shapes, count: int, pinned: float) -> None:
        self.record, self.device, self.count, self.pinned = record, device, count, pinned
        self.config: Any = shapes.giant
        self.size = (self.config.num_key_value_heads, self.config.intermediate_size)
        self.dtype = torch.float32 if shapes.toy else torch.bfloat16
        self.rows, self.length = (2, 32) if shapes.toy else (4, 512)
        self.unit = 8 if shapes.toy else 128
        self.base: Any = random_model(self.config, [self.size], dtype=self.dtype, device=device.torch.type)
        for name, parameter in self.base.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
        self.layer = sum(parameter.nbytes for parameter in self.base.get_decoder().layers[0].parameters())

    def run(self, path: Path, cap: float, deadline: Deadline) -> None:
        """All phases, each a row, and what was to be reached."""
        self._phase("layers written", lambda: self._write(path), self.count * self.layer)
        files, ids = TensorFiles([path]), self._tokens(2)
        free = self.device.free_bytes()
        resident = free is None or self.count * self.layer < ROOM * free
        calibration: Calibration | None = None
        expected: list[list[float]] | None = None
        if resident:
            model = self._model()
            self._phase("layers read into memory", lambda: self._fill(model, files), self.count * self.layer)
            calibration = self._phase("calibration, in memory", lambda: calibrate(model, self._tokens(1)))
            elastic = ElasticModel(model, calibration, mlp_unit=self.unit, compensation="none")
            expected = self._phase("targets and walk, in memory", lambda: self._scores(elastic, ids))
            del model, elastic
            self.device.release()
        if self.device.is_cuda:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))
        model = self._model()
        with StreamedLayers(model, files) as store:
            share, _ = self._passes("a pass over the layers alone", store, lambda: self._touch(store))
            if deadline.left() < 0:
                self.record.row(phase="walk, streamed", skipped="no time")
                return
            if calibration is None:
                calibration = self._passes(
                    "calibration, streamed", store, lambda: calibrate(model, self._tokens(1), store=store)
                )[1]
            elastic = ElasticModel(model, calibration, mlp_unit=self.unit, compensation="none", store=store)
            found = self._passes("targets and walk, streamed", store, lambda: self._scores(elastic, ids))[1]
        self.record.target("share of the pinned bandwidth that a streamed pass reaches", share, least=SHARE)
        if expected is not None:
            pairs = zip(chain(*found), chain(*expected), strict=True)
            difference = max(abs(own - other) for own, other in pairs)
            self.record.target("largest difference of a streamed score", difference, most=0.0)
        self.record.target("peak bytes while layers are streamed", self.device.peak_bytes(), most=cap)

    def _write(self, path: Path) -> None:
        """Other random numbers for every layer, written one layer at a time."""
        layer = self.base.get_decoder().layers[0]
        parameters = dict(layer.named_parameters())
        shapes = {
            self._name(index, name): (one.dtype, one.shape)
            for index in range(self.count)
            for name, one in parameters.items()
        }
        with TensorWriter(path, shapes, {}) as writer:
            for index in range(self.count):
                some = random_numbers(self.device, self.dtype, NUMBERS, seed=index)
                for name, parameter in parameters.items():
                    if "norm" not in name:
                        fill(parameter, some)
                    writer.write(self._name(index, name), parameter)

    @staticmethod
    def _name(index: int, name: str) -> str:
        return f"model.layers.{index}.{name}"

    def _model(self) -> Any:
        """The model without numbers in its layers; all else is shared."""
        model = meta_model(self.config, [self.size] * self.count).eval()
        decoder, base = model.get_decoder(), self.base.get_decoder()
        for name in ("embed_tokens", "norm", "rotary_emb"):
            setattr(decoder, name, getattr(base, name))
        model.set_output_embeddings(self.base.get_output_embeddings())
        return model

    def _fill(self, model: Any, files: TensorFiles) -> None:
        for index, layer in enumerate(model.get_decoder().layers):
            for name, _ in list(layer.named_parameters()):
                put(layer, name, files.read(self._name(index, name)).to(self.device.torch))

    def _tokens(self, seed: int) -> torch.Tensor:
        shape, generator = (self.rows, self.length), torch.Generator().manual_seed(seed)
        return torch.randint(self.config.vocab_size, shape, generator=generator).to(self.device.torch)

    def _scores(self, elastic: ElasticModel, ids: torch.Tensor) -> list[list[float]]:
        """KL of every sequence at each of some profiles."""
        budget = Budget.from_sparsity(elastic.space, 0.3)
        profiles: Sequence[Profile] = generation(budget, [uniform(budget)], CANDIDATES, random.Random(0))
        targets = DenseTargets.build(elastic, elastic.store, ids)
        measured = PopulationWalk(elastic, elastic.store, targets, ids, prefix_memory=0).measure(
            profiles, range(len(ids))
        )
        if failed := [one.error for one in measured if one.error]:
            raise RuntimeError(failed[0])
        return [list(one.kl) for one in measured]

    def _touch(self, store: StreamedLayers) -> None:
        for index in range(self.count):
            with store.layer(index):
                pass

    def _phase(self, name: str, action: Callable[[], Any], moved: int = 0) -> Any:
        return self._timed(name, action, lambda: moved)[1]

    def _passes(self, name: str, store: StreamedLayers, action: Callable[[], Any]) -> tuple[float, Any]:
        """A phase that reads layers; the share of the pinned bandwidth that it reaches, and what it gives."""
        before = store.layers_read
        return self._timed(name, action, lambda: (store.layers_read - before) * self.layer)

    def _timed(self, name: str, action: Callable[[], Any], moved: Callable[[], int]) -> tuple[float, Any]:
        found: list[Any] = []
        self.device.forget_peak()
        self.record.set(phase=name)
        seconds = self.device.seconds(lambda: found.append(action()))
        rate = moved() / seconds
        row: Row = {"phase": name, "seconds_taken": rounded(seconds), "passes": moved() / self.layer / self.count}
        if rate:
            row |= {"gigabytes_per_second": rounded(rate / 1e9), "share_of_pinned": rounded(rate / self.pinned, 3)}
        self.record.row(**row, peak_bytes=self.device.peak_bytes())
        return rate / self.pinned, found[0]
