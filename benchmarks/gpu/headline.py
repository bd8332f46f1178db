"""Headline: what LLaMA-2-70B gains at 49 and at 35 billion parameters, in milliseconds.

Every model is made, timed and dropped again, the dense one first and once more at the end, which shows the drift of the
device. A decoding step has to read all weights once, so beside its milliseconds stands what it reads a second, as a
share of what a copy reaches; its pieces (attention, MLPs, head) are timed apart. Where the whole model does not fit,
two depths of as many layers as do are timed, and layers being alike, the rest is proportion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.gpu.decoder import Decoder, Weights, random_weights, stock
from benchmarks.gpu.device import Device, reason
from benchmarks.gpu.profiles import Model, Shapes, models
from benchmarks.gpu.record import Deadline, Record, Row, figure, rounded
from self_pruner.tools.latency.measure import graph_request, request
from self_pruner.tools.latency.shapes import Sizes, some_of

BATCHES = (1, 16)
AIMS = (1.40, 1.90)  # speed-ups of a request that the two sizes are to reach
ROOM = 0.99  # of the free memory that may be taken
ACTIVATIONS = 4e9  # bytes beside weights and cache, largest while a batch of prompts is read


@dataclass(frozen=True, slots=True)
class Request:
    """What is timed."""

    prompt: int  # tokens
    decode: int
    eager: int  # of the decoded tokens, how many are timed without a graph
    repeats: int  # of prefill


@dataclass(frozen=True, slots=True)
class Depth:
    """Seconds of a model at two numbers of layers, and so of all of them."""

    layers: int  # of the whole model
    deep: int
    shallow: int  # 0 where the deep one is whole

    def whole(self, deep: float, shallow: float) -> float:
        """Of the whole model: what each layer takes more, times the layers that are missing."""
        if not self.shallow:
            return deep
        return deep + (self.layers - self.deep) * max(deep - shallow, 0.0) / (self.deep - self.shallow)


def depth_that_fits(layers: int, layer_bytes: float, other_bytes: float, free_bytes: float | None) -> Depth:
    """All layers where they fit, else as many as do and half of them.

    Args:
        layers: of the whole model.
        layer_bytes: of one dense layer and its cache.
        other_bytes: of embedding, head and activations.
        free_bytes: of the device; None where that is not known.
    """
    fit = layers if free_bytes is None else min(layers, int((ROOM * free_bytes - other_bytes) // layer_bytes))
    if fit >= layers:
        return Depth(layers, layers, 0)
    return Depth(layers, max(2, fit), max(2, fit) // 2)


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """Time all models, as far as time allows."""
    dtype = torch.float32 if shapes.toy else torch.bfloat16
    request = Request(16, 4, 2, 2) if shapes.toy else Request(512, 128, 32, 3)
    config = shapes.giant
    copy_rate, peak = device.copy_rate(), device.matrix_peak(dtype)
    device.release()
    all_models = models(shapes)
    layer_bytes = 2.0 * all_models[0].parameters / shapes.layers
    cache = 4.0 * max(BATCHES) * (request.prompt + request.decode) * config.num_key_value_heads * 128
    depth = depth_that_fits(shapes.layers, layer_bytes + cache, ACTIVATIONS, device.free_bytes())
    if shapes.toy:
        depth = Depth(shapes.layers, 4, 2)  # so that both ways are run
    record.set(
        copy_bytes_per_second=rounded(copy_rate),
        matrix_flops_per_second=rounded(peak),
        depth={"layers": depth.layers, "timed": depth.deep, "and": depth.shallow},
    )
    timer = _Timer(record, device, shapes, request, depth, dtype, copy_rate, peak)
    took = 0.0
    for model in [*all_models, all_models[0]]:
        again = model.target == "dense" and took > 0
        needed = 0.3 * took if again else took / model.linear
        if took and deadline.left() < 1.15 * needed:
            record.row(model=model.name, skipped=f"no time: about {needed:.0f} s needed, {deadline.left():.0f} s left")
            continue
        seconds = device.seconds(lambda model=model, again=again: timer.time(model, again))  # type: ignore[misc]
        took = took or seconds
        rows = record.content["rows"]
        record.set(speedups=speedups(rows), losses=losses(rows))
    for (target, _, _), aim in zip(shapes.targets, AIMS, strict=True):
        name = f"{target} unequal"
        reached = [row.get("request") for row in record.content["speedups"] if _first_graph(row) == name]
        record.target(f"speed-up of a request, {name}", reached[0] if reached else None, least=aim)


def _first_graph(row: Row) -> str | None:
    """The model of a row of one prompt in graphs, else nothing."""
    return row["model"] if (row["batch"], row["mode"]) == (BATCHES[0], "graph") else None


def speedups(rows: Sequence[Row]) -> list[Row]:
    """Every model against the dense one, by batch and mode: prefill, a decoded token, the whole request."""
    dense = {(row["batch"], row["mode"]): row for row in rows if row.get("model") == "dense" and "decode_ms" in row}
    found = []
    for row in rows:
        base = dense.get((row.get("batch"), row.get("mode")))
        if base is None or "decode_ms" not in row or row["model"].startswith("dense"):
            continue
        found.append(
            {
                "model": row["model"],
                "batch": row["batch"],
                "mode": row["mode"],
                "linear": row["linear"],
                "paper": row["paper"],
                **{
                    name: rounded(base[f"{name}_ms"] / row[f"{name}_ms"])
                    for name in ("prefill", "decode", "request")
                    if row.get(f"{name}_ms")
                },
            }
        )
    return found


def losses(rows: Sequence[Row]) -> list[Row]:
    """What keeps a decoded token from being as much faster as the model is smaller, in milliseconds by pieces.

    Of each piece, and of what is left of the step beside the pieces, the milliseconds above the dense model's over the
    linear speed-up: they add up to what the whole step takes above that. Rows at part of the depth have no such sum.
    """
    dense = {row["batch"]: row for row in rows if row.get("model") == "dense" and "pieces" in row}
    found = []
    for row in rows:
        base = dense.get(row.get("batch"))
        if base is None or "pieces" not in row or row["model"].startswith("dense"):
            continue
        own, other = _with_rest(row), _with_rest(base)
        above = {name: rounded(own[name] - other[name] / row["linear"], 3) for name in own}
        lost = rounded(row["timed_decode_ms"] - base["timed_decode_ms"] / row["linear"], 3)
        found.append({"model": row["model"], "batch": row["batch"], "lost_ms": lost, **above})
    return found


def _with_rest(row: Row) -> dict[str, float]:
    pieces = {name: piece["ms"] for name, piece in row["pieces"].items()}
    return pieces | {"rest": row["timed_decode_ms"] - sum(pieces.values())}


class _Timer:
    """Times one model after the other."""

    def __init__(
        self,
        record: Record,
        device: Device,
        shapes: Shapes,
        request: Request,
        depth: Depth,
        dtype: torch.dtype,
        copy_rate: float,
        peak: float,
    ) -> None:
        self.record, self.device, self.shapes, self.request = record, device, shapes, request
        self.depth, self.dtype, self.copy_rate, self.peak = depth, dtype, copy_rate, peak

    def time(self, model: Model, again: bool) -> None:
        """All batches and modes of one model; `again` only what shows the drift."""
        name = f"{model.name} again" if again else model.name
        facts = {"parameters": model.parameters, "linear": rounded(model.linear), "paper": model.paper}
        facts |= {"aligned": rounded(model.aligned)}
        shallow: dict[tuple[int, str], Row] = {}
        if self.depth.shallow:
            some = _some(model.sizes, self.depth.shallow)
            shallow = {(row["batch"], row["mode"]): row for row in self._at(some, again)}
        for row in self._at(_some(model.sizes, self.depth.deep), again):
            whole = self._whole(row, shallow.get((row["batch"], row["mode"])))
            self.record.row(model=name, **facts, **whole)
        self.device.release()

    def _whole(self, deep: Row, shallow: Row | None) -> Row:
        """The row of the whole model: milliseconds as they would be with all layers."""
        row = dict(deep)
        if self.depth.shallow:
            other = shallow or {"error": "only one depth could be timed"}
            for name in ("prefill_ms", "decode_ms"):
                if name in deep and name in other:
                    row[name] = rounded(self.depth.whole(deep[name], other[name]), 5)
                else:
                    row.pop(name, None)  # of some layers, which the name of the whole model must not stand for
            row = {name: other[name] for name in ("error",) if name in other} | row
        if "prefill_ms" in row and "decode_ms" in row:
            row["request_ms"] = rounded(row["prefill_ms"] + self.request.decode * row["decode_ms"], 5)
            row["tokens_per_second"] = rounded(1e3 * row["batch"] / row["decode_ms"])
        return row

    def _at(self, sizes: Sequence[Sizes], again: bool) -> Iterator[Row]:
        """Rows of a model of these layers, each as soon as it is measured."""
        weights = random_weights(self.shapes.giant, sizes, self.device, self.dtype)
        length = self.request.prompt + self.request.decode
        for batch in BATCHES[:1] if again else BATCHES:
            for mode, way in (
                ("graph", self._graph),
                ("eager", self._eager),
                ("product", self._product),
                ("transformers", self._stock),
            ):
                if again and mode != "graph":
                    continue
                try:
                    row = way(Decoder(weights, batch, length))
                except Exception as error:  # a way that fails says why, and the others go on
                    row = {"error": reason(error)}
                self.device.release()
                yield {"batch": batch, "mode": mode, **row}

    def _prompt(self, weights: Weights, batch: int) -> torch.Tensor:
        shape = (batch, self.request.prompt)
        return torch.randint(
            weights.shape.vocab, shape, device=self.device.torch, generator=self.device.generator(batch)
        )

    def _graph(self, decoder: Decoder) -> Row:
        """Prefill and decoding replayed as CUDA graphs, and the pieces of a step."""
        prompt = self._prompt(decoder.weights, decoder.batch)
        prefill = self.device.captured(lambda: decoder.prefill(prompt))
        times = self.device.repeat(prefill, self.request.repeats)
        row = self._times(decoder, times, self._decoded(decoder, self.device.captured(decoder.step), prefill))
        pieces = {}
        decoder.position.fill_(decoder.length - 1)  # the last step has left it behind the cache's end
        for name, (action, size) in decoder.pieces().items():
            replay = self.device.captured(action)
            seconds = statistics.median(self.device.repeat(replay, 5))
            share = size / seconds / self.copy_rate
            pieces[name] = {"ms": rounded(1e3 * seconds), "bytes": size, "share_of_copy": rounded(share, 3)}
        return row | {"pieces": pieces, "timed_decode_ms": row["decode_ms"]}

    def _eager(self, decoder: Decoder) -> Row:
        """The same operations, launched one by one by the host."""
        prompt = self._prompt(decoder.weights, decoder.batch)
        times = self.device.repeat(lambda: decoder.prefill(prompt), self.request.repeats)
        laps = self.device.laps(decoder.step, self.request.eager)
        return self._times(decoder, times, laps)

    def _decoded(self, decoder: Decoder, step: Callable[[], object], prefill: Callable[[], object]) -> list[float]:
        prefill()  # capturing has moved the position on
        return self.device.laps(step, self.request.decode)

    def _times(self, decoder: Decoder, prefill: Sequence[float], laps: Sequence[float]) -> Row:
        read, step = statistics.median(prefill), statistics.median(laps)
        flops = decoder.prefill_flops(self.request.prompt)
        return {
            "prefill_ms": rounded(1e3 * read, 5),
            "decode_ms": rounded(1e3 * step, 5),
            "prefill_share_of_peak": rounded(flops / read / self.peak, 3),
            "decode_share_of_copy": rounded(decoder.step_bytes / step / self.copy_rate, 3),
            "prefill_seconds": figure(prefill),
            "decode_seconds": figure(laps),
            "step_bytes": decoder.step_bytes,
        }

    def _product(self, decoder: Decoder) -> Row:
        """As the product times a candidate: the modules of transformers, a static cache, graphs."""
        model, prompt = stock(decoder.weights), self._prompt(decoder.weights, decoder.batch)
        decoder.caches.clear()  # it brings its own
        timed = graph_request(model, prompt, self.request.eager)
        timed()
        timing = timed()
        return {
            "prefill_ms": rounded(1e3 * timing.prefill, 5),
            "decode_ms": rounded(1e3 * timing.decode / self.request.eager, 5),
        }

    def _stock(self, decoder: Decoder) -> Row:
        """As transformers runs the same weights: its own modules, its own growing cache, its own Python."""
        model, prompt = stock(decoder.weights), self._prompt(decoder.weights, decoder.batch)
        decoder.caches.clear()  # it brings its own
        request(model, prompt, 1)
        timing = request(model, prompt, self.request.eager)
        return {
            "prefill_ms": rounded(1e3 * timing.prefill, 5),
            "decode_ms": rounded(1e3 * timing.decode / self.request.eager, 5),
        }


def _some(sizes: Sequence[Sizes], count: int) -> list[Sizes]:
    """So many of the layers, by their weight; all of them in their own order."""
    if count == len(sizes):
        return list(sizes)
    return some_of(sizes, count, lambda one: one[0] * 2048.0 + one[1])
