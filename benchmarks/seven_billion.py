"""Seven billion parameters on a CPU with their layers streamed: memory, time and bytes read, phase by phase.

Writes a random checkpoint of the shape of LLaMA-2-7B, 13.5 GB in bfloat16, and carries out a run on it as `main.py`
does: calibration on 512 tokens, a few candidates of a scripted brain, recalibration, export, and verification in a new
process.

    OMP_NUM_THREADS=2 python -m benchmarks.seven_billion --output benchmarks/results/seven-billion.json

Memory is resident memory in bytes, of this process and of those it starts together, sampled ten times a second; pages
that they share, such as libraries, count once for each, and the system's cache of files not at all. The kernel's own
peak of this process stands beside it. Bytes read are all that this process asked files for, Gram matrices included;
what the verifying process reads is not among them. The checkpoint, 18 GB of Gram matrices and the result are removed at
the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig

from self_pruner.agent.prepare import workbench
from self_pruner.agent.session import start
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.tools.models.aliases import PUBLISHED
from self_pruner.tools.models.bundled import bundled_model
from self_pruner.tools.models.source import skeleton
from self_pruner.tools.models.tensor_files import TensorFiles, write_sharded
from self_pruner.tools.pruning.streamed import StreamedLayers
from self_pruner.tools.text.quantities import size
from self_pruner.tools.text.sources import text_source

SECONDS = 0.1  # between two samples of memory
WORDS = 4096  # of the tokenizer
BETWEEN = "search, and all between phases"
RUN = {
    **dict(arm="self", brain="uniform", evaluations=3, offspring=2, initial=1, population=1, samples=2, remembered=0),
    **dict(sparsity=0.2, calibration_sequences=1, calibration_length=512, sequence_length=128, fidelity=(128,)),
    **dict(probe_tokens=128, final_tokens=128, final_candidates=1, reporting_tokens=128, benchmarks=0),
    **dict(placement="streamed", device="cpu", dtype="bfloat16"),
}


def config_of(layers: int, hidden: int) -> Any:
    """The config of LLaMA-2-7B with other sizes."""
    heads = max(4, hidden // 128)
    inner = 8 * round(hidden * 11008 / 4096 / 8)
    sizes = dict(num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=inner)
    config = LlamaConfig(**(PUBLISHED["llama-2-7b"] | sizes | dict(num_hidden_layers=layers, hidden_size=hidden)))
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    return config


def write_checkpoint(folder: Path, config: Any) -> None:
    """A random model of that shape, a tensor at a time, and a tokenizer for it."""
    folder.mkdir()
    model = skeleton(config.to_dict(), folder.name).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)

    def made(name: str, empty: Tensor) -> Tensor:
        if empty.ndim == 1:
            return torch.ones(empty.shape, dtype=torch.bfloat16)
        deviation = 1.0 if "embed" in name else empty.shape[1] ** -0.5
        return torch.empty(empty.shape, dtype=torch.bfloat16).normal_(0, deviation, generator=generator)

    outline = model.state_dict()
    write_sharded(folder, outline, ((name, made(name, empty)) for name, empty in outline.items()))
    config.save_pretrained(folder)
    text = text_source("passages", "calibration").documents[:200]
    AutoTokenizer.from_pretrained(bundled_model()).train_new_from_iterator(text, WORDS).save_pretrained(folder)


class Watched(StreamedLayers):
    """The layers of the run, so that its passes can be counted phase by phase."""

    newest: Watched | None = None

    def __init__(self, model: Any, files: TensorFiles) -> None:
        super().__init__(model, files)
        Watched.newest = self


class Measured(View):
    """A view that measures the phases it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, dict[str, float]] = {}
        self._process, self._ended = psutil.Process(), Event()
        self._phase, self._before = BETWEEN, self._counts()
        self._sampler = Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Measured:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enter(BETWEEN)
        self._ended.set()
        self._sampler.join()
        self.show()

    def show(self) -> None:
        """What was measured so far, also of a run that failed."""
        rows = [
            (
                name,
                f"{row['seconds'] / 60:.1f}",
                f"{row['passes']:.1f}",
                size(row["bytes_read"]),
                size(row["peak_bytes"]),
            )
            for name, row in self.rows.items()
        ]
        self.table("By phase", ("phase", "minutes", "passes", "read", "peak memory"), rows)

    @contextmanager
    def phase(self, name: str, unit: str = "") -> Iterator[Any]:
        """The phase of a view, measured."""
        self._enter(name)
        with super().phase(name, unit) as report:
            yield report
        self._enter(BETWEEN)

    def _enter(self, name: str) -> None:
        """End the phase that there is, and begin another."""
        counts, row = self._counts(), self._row(self._phase)
        for key, count in counts.items():
            row[key] += count - self._before[key]
        self._phase, self._before = name, counts

    def _row(self, name: str) -> dict[str, float]:
        return self.rows.setdefault(name, {"seconds": 0.0, "passes": 0.0, "bytes_read": 0, "peak_bytes": 0})

    def _counts(self) -> dict[str, float]:
        """What has added up so far."""
        passes = Watched.newest.passes if Watched.newest else 0.0
        read = getattr(self._process.io_counters(), "read_chars", 0)  # Linux counts them
        return {"seconds": time.perf_counter(), "passes": passes, "bytes_read": read}

    def _sample(self) -> None:
        while not self._ended.wait(SECONDS):
            row = self._row(self._phase)
            row["peak_bytes"] = max(row["peak_bytes"], self._memory())

    def _memory(self) -> int:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended
                total += process.memory_info().rss
        return total


def main() -> None:
    """Write, run, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="decoder layers")
    parser.add_argument("--hidden", type=int, default=4096, help="width, a multiple of 8; all else is in proportion")
    parser.add_argument("--folder", type=Path, help="where the run is made, of the model in it or a new one")
    parser.add_argument("--keep", action="store_true", help="do not remove them at the end")
    parser.add_argument("--output", type=Path, help="file for the figures, JSON")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="self-pruner-seven-billion-"))
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}  # which are not ours to remove
    try:
        answer = measured(folder, config_of(options.layers, options.hidden))
    finally:
        if not options.keep:
            for name in {"model", "runs", "cache"} - there:
                shutil.rmtree(folder / name, ignore_errors=True)
            with suppress(OSError):  # something else is in it
                folder.rmdir()
    print(json.dumps(answer, indent=1))
    if options.output:
        options.output.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def measured(folder: Path, config: Any) -> dict[str, Any]:
    """The figures of a run on a model of that shape, made in `folder`."""
    began = time.perf_counter()
    if not (folder / "model").exists():
        with ProcessPoolExecutor(1, get_context("spawn")) as writer:  # what it leaves in memory is not the run's
            writer.submit(write_checkpoint, folder / "model", config).result()
    written = time.perf_counter()
    workbench.StreamedLayers = Watched  # type: ignore[misc]
    places = {"model": str(folder / "model"), "runs": folder / "runs", "cache": folder / "cache"}
    with Measured() as view:
        _, outcome = start(make_settings({**RUN, **places}), view)
    minutes = (time.perf_counter() - written) / 60
    rows = view.rows
    return {
        "checkpoint_bytes": sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors")),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "threads": torch.get_num_threads(),
        "peak_bytes": max(row["peak_bytes"] for row in rows.values()),
        "kernel_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "minutes": round(minutes, 1),
        "minutes_to_write": round((written - began) / 60, 1),
        "passes": round(outcome.spent["layer_passes"], 1),
        "layer_bytes_read": outcome.spent["layer_bytes_read"],
        "candidates": outcome.spent["evaluations"],
        "recalibrated": outcome.recalibration is not None and outcome.recalibration.failure is None,
        "verified": outcome.verified,
        "phases": {name: {key: round(value, 1) for key, value in row.items()} for name, row in rows.items()},
    }


if __name__ == "__main__":
    main()
