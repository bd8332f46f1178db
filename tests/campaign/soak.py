"""Thousands of candidates in one run: memory, seconds a turn and files stay what they were after the first ones.

The brain is scripted and the model tiny, so that what grows with the number of candidates is not hidden by what does
not. Every record of a judge is a sample.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaign import forks
from tests.campaign.kills import Tally
from tests.campaign.scenarios import World

WARM = 0.3  # share of the candidates that only warm up
BYTES_A_CANDIDATE = 4096  # resident memory: what is known of one, in Python's objects
CACHE = 1 << 20  # bytes of hidden states, and of refits, that are kept; hundreds of megabytes in a run proper
SLACK = 4 << 20  # bytes that the allocator may take at once, however few candidates there were
SLOWER = 2.0  # how many times the seconds a candidate may grow from the first part after warming up to the last one
LONG = 1000  # candidates from which on times say something
CHECKPOINT = 4 << 20  # bytes of the checkpoint, which holds ids and numbers of the last step alone
SETTINGS = (
    "--fidelity 64 --probe-tokens 64 --sensitivities 0 --final-tokens 64 --reporting-tokens 64 --offspring 40 "
    "--population 8 --patience 1000000 --brain first --no-export --no-recalibrate"
)


@dataclass(frozen=True)
class Sample:
    """What one judge saw."""

    evaluations: float
    seconds: float
    resident: int
    files: dict[str, int]


def campaign(world: World, candidates: int, say: Callable[[str], None]) -> Tally:
    """One long run, looked at all the time."""
    model, log = world.base / "deeper", world.base / "samples.jsonl"
    _deeper(model)
    world.case.mkdir(exist_ok=True)
    words = ["run", "--runs", world.case / "runs", *world.settings(), *SETTINGS.split()]
    words += ["--model", model, "--evaluations", candidates]
    ended = forks.call(words, world.case, partial(_sampled, log), patience=3600.0)
    tally = Tally()
    if ended.status or ended.fault:
        tally.faults.append(f"status {ended.status}, {ended.fault}: {ended.errors[-300:]}")
        return tally
    samples = [Sample(**json.loads(line)) for line in log.read_text().splitlines()]
    tally.tried["candidates"] += round(samples[-1].evaluations)
    tally.tried["turns"] += len(samples)
    tally.faults += judged(samples, say)
    return tally


def judged(samples: list[Sample], say: Callable[[str], None]) -> list[str]:
    """What grew that should not."""
    faults = []
    total = samples[-1].evaluations
    warm = [sample for sample in samples if sample.evaluations >= WARM * total]
    third = len(warm) // 3
    first, last = warm[:third], warm[-third:]
    count = last[-1].evaluations - first[0].evaluations
    grown = max(0, last[-1].resident - first[0].resident - SLACK) / count
    say(f"{total:.0f} candidates: {grown:,.0f} bytes of memory each, {last[-1].resident / 1e6:,.0f} MB in the end")
    if grown > BYTES_A_CANDIDATE:
        faults.append(f"memory grows by {grown:,.0f} bytes a candidate, {BYTES_A_CANDIDATE:,} are allowed")
    early, late = _pace(first), _pace(last)
    say(f"{1000 * early:.1f} ms a candidate after warming up, {1000 * late:.1f} ms in the end")
    if late > SLOWER * early and total >= LONG:
        faults.append(f"a candidate takes {1000 * late:.1f} ms in the end, and {1000 * early:.1f} ms after warming up")
    for name, size in last[-1].files.items():
        each = (size - first[0].files.get(name, 0)) / count
        say(f"{name}: {size:,} bytes, {each:,.0f} a candidate")
    if last[-1].files.get("checkpoint.sqlite", 0) > CHECKPOINT:
        faults.append(f"the checkpoint has {last[-1].files['checkpoint.sqlite']:,} bytes, {CHECKPOINT:,} are allowed")
    return faults


def _pace(samples: list[Sample]) -> float:
    """Seconds a candidate: the median over turns, which one slow moment of the machine does not move."""
    pairs = zip(samples, samples[1:], strict=False)
    paces = [
        (b.seconds - a.seconds) / (b.evaluations - a.evaluations) for a, b in pairs if b.evaluations > a.evaluations
    ]
    return statistics.median(paces or [0.0])


def _deeper(folder: Path) -> None:
    """A tiny model with more layers, so that there are profiles enough."""
    from self_pruner.tools.models.quiet import quiet
    from tests.brain_tiny import tiny_tokenizer
    from tests.tiny import tiny_model

    with quiet():
        tiny_model("llama", tied=True, num_hidden_layers=6).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _sampled(log: Path) -> None:
    """Every judge's record becomes a sample of this process, whose caches are small enough to be full at once."""
    from self_pruner.agent.prepare import workbench as preparation
    from self_pruner.agent.run_files.trace import TraceWriter

    preparation.prefix_memory = lambda *_given, **_named: CACHE
    preparation.refit_memory = lambda *_given, **_named: CACHE
    real, start = TraceWriter.write, time.monotonic()

    def write(writer: TraceWriter, record: Any) -> None:
        real(writer, record)
        if record.kind != "judge":
            return
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize()
        run = writer.path.parent
        files = {path.name: path.stat().st_size for path in run.iterdir() if path.is_file()}
        files["memory.sqlite"] = os.path.getsize(run.parent / "memory.sqlite")
        sample = {
            "evaluations": record.spent["evaluations"],
            "seconds": time.monotonic() - start,
            "resident": resident,
            "files": {name: size for name, size in files.items() if size > 1 << 16},
        }
        with log.open("a") as file:
            file.write(json.dumps(sample) + "\n")

    TraceWriter.write = write  # type: ignore[method-assign]
