"""What a run of a model would fill and how long it would take on machines that are not here.

    python -m benchmarks.placements llama-2-70b --params 49B

The machines are invented, the bill is that of `--dry-run`. Seconds follow from the rates that are printed, which are
stated, not measured: change them by options. `--table` prints the short table of docs/memory.md instead.

    python -m benchmarks.placements smollm2-135m --run --seed 0

carries out two runs of a model here, at the same time, with its layers in memory and streamed, and prints the seconds
of each and whether candidates, scores and checkpoint are the same. What follows `--run` are options of both runs.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from self_pruner.agent.dry_run.cost_estimate import Step, steps_of, total_seconds
from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.plan import plan_of
from self_pruner.agent.prepare.bill import needed
from self_pruner.agent.prepare.checks import Target, check_target
from self_pruner.agent.prepare.devices import Device, Machine
from self_pruner.agent.prepare.placement import Placement, place
from self_pruner.agent.prepare.texts import wanted_texts
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import read_trace
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.models.aliases import BUNDLED
from self_pruner.tools.models.bundled import bundled_model
from self_pruner.tools.text.quantities import duration, size

FREE = 0.985  # of a memory, before a run
COMPARED = ("candidates and scores", "checkpoint")  # of two runs
PROMPT = 1000  # tokens of the brain's first prompt, about


def machine(*gpus: int, memory: int, disk: int = 2000) -> Machine:
    """A machine of so many GiB on each GPU and in main memory, and so many GB of free disk."""
    there = Device("the disk", "disk", disk * 10**9, disk * 10**9)
    return Machine(
        memory=_memory("memory", "cpu", memory),
        gpus=tuple(_memory(f"cuda:{number}", "cuda", gib) for number, gib in enumerate(gpus)),
        disks={"models": there, "cache": there, "runs": there},
    )


def _memory(name: str, kind: str, gib: int) -> Device:
    return Device(name, "cuda" if kind == "cuda" else "cpu", gib << 30, int(FREE * (gib << 30)))


MACHINES = {
    "1 x 24 GB": machine(24, memory=128),
    "1 x 80 GB": machine(80, memory=128),
    "2 x 80 GB": machine(80, 80, memory=256),
    "8 x 80 GB": machine(*[80] * 8, memory=1024),
    "no GPU, 32 GB": machine(memory=32),
    "no GPU, 16 GB": machine(memory=16),
}


def target_of(settings: Settings, there: Machine) -> Target:
    """The target model as `there` would compute it; its shapes need no hub."""
    target = check_target(settings.model_copy(update={"device": "cpu"}), weights=False)
    device = "cuda" if there.gpus else "cpu"
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if there.gpus else "float32"
    texts = wanted_texts(settings, target.outline.model.config.max_position_embeddings, device)
    return replace(target, device=device, dtype=dtype, texts=texts)


def steps(settings: Settings, target: Target, placement: Placement, rates: argparse.Namespace) -> list[Step]:
    """The parts of a run at stated rates."""
    sizes = placement.sizes
    operations = rates.tflops * 1e12 if placement.machine.gpus else rates.cpu_tflops * 1e12
    single = rates.float32_tflops * 1e12 if placement.machine.gpus else operations
    memory = (rates.gpu_memory if placement.machine.gpus else rates.memory) * 1e9
    speed = Speed(
        layer=2 * sizes.layer / operations,
        head=2 * sizes.shape.vocab * sizes.shape.hidden / operations,
        step=(sizes.weights - sizes.other_weights / 2) / memory,
        operation=1 / single,
        read=1e-9 / rates.disk,
        again=1e-9 / rates.memory,
        upload=1e-9 / rates.upload if placement.machine.gpus else 0.0,
    )
    settings = placement.applied(settings)
    arm = ARMS[settings.arm]
    plan = plan_of(settings, arm, PromptSet(settings.prompts_of_arm, settings.prompts), target.budget, 0)
    return steps_of(settings, plan, placement, speed, PROMPT)


def show(name: str, settings: Settings, there: Machine, rates: argparse.Namespace) -> None:
    """One machine."""
    target = target_of(settings, there)
    placement = place(settings, target, there)
    print(f"\n{name}, {size(there.memory.total)} of memory, {target.dtype}")
    print(f"  {placement.fault or placement}")
    if placement.fault:
        return
    for device in there.devices:
        print(f"  {device.name}: {size(needed(placement.lines, device.name, recalibration=placement.recalibrates))}")
        for line in placement.lines:
            if line.where == device.name:
                print(f"    {size(line.bytes):>8}  {line.what} ({line.when})")
    parts = steps(settings, target, placement, rates)
    for step in parts:
        print(f"  {duration(step.seconds):>9}  {step.what}" + (f", {step.passes} passes" if step.passes else ""))
    passes = sum(step.passes for step in parts)
    print(f"  {duration(total_seconds(settings, parts)):>9}  in all" + (f", {passes} passes" if passes else ""))


def table(settings: Settings, rates: argparse.Namespace) -> list[str]:
    """A row a machine, as in docs/memory.md."""
    rows = [
        "| machine | layers | on the fullest GPU | in memory | on the disk | passes beside the brain's |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, there in MACHINES.items():
        target = target_of(settings, there)
        placement = place(settings, target, there)

        def most(kind: str, placement: Placement = placement) -> str:
            devices = [each for each in placement.machine.devices if each.kind == kind]
            counts = [needed(placement.lines, each.name, recalibration=placement.recalibrates) for each in devices]
            return size(max(counts)) if counts else "-"

        passes = sum(step.passes for step in steps(settings, target, placement, rates) if "Brain" not in step.what)
        how = placement.mode + ("" if placement.recalibrates else ", not recalibrated")
        cells = [f"{name}, {there.memory.total >> 30} GB of memory" if there.gpus else name, how]
        cells += [most("cuda"), most("cpu"), most("disk"), str(passes or "-")]
        if placement.fault:
            cells = [cells[0], f"refused: {placement.fault}", "", "", "", ""]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def side_by_side(model: str, words: Sequence[str]) -> None:
    """Carry out a run resident and a run streamed, and compare them; ends with 1 where they differ."""
    name = str(bundled_model()) if model == BUNDLED else model
    with tempfile.TemporaryDirectory(prefix="self-pruner-placements-") as folder:
        began, ended, found = time.perf_counter(), dict[str, float](), dict[str, Any]()
        given = ["--model", name, *words]
        running = {mode: begun(mode, given, Path(folder) / mode) for mode in ("resident", "streamed")}
        while len(ended) < len(running):
            time.sleep(0.1)
            now = time.perf_counter() - began
            ended |= {mode: now for mode, run in running.items() if mode not in ended and run.poll() is not None}
        for mode, run in running.items():
            if run.returncode:
                raise SystemExit(f"the {mode} run ended with status {run.returncode}")
            found[mode] = carried_out(RunDirectory.latest(Path(folder) / mode / "runs"))
            candidates, checkpoint = found[mode]
            print(f"{mode}: {ended[mode]:.0f} s, {len(candidates)} figures of candidates, checkpoint {checkpoint[:12]}")
    same = [ours == theirs for ours, theirs in zip(*found.values(), strict=True)]
    said = [f"{what} {'the same' if one else 'DIFFERENT'}" for what, one in zip(COMPARED, same, strict=True)]
    print(f"{', '.join(said)}; streamed takes {ended['streamed'] / ended['resident']:.2f} times as long")
    if not all(same):
        raise SystemExit(1)


def begun(mode: str, words: Sequence[str], root: Path) -> subprocess.Popen[bytes]:
    """A run with a cache of its own."""
    command = [sys.executable, str(Path(__file__).parents[1] / "main.py"), *words, "--placement", mode]
    return subprocess.Popen(
        [*command, "--runs", str(root / "runs"), "--cache", str(root / "cache"), "--benchmarks", "0", "--quiet"]
    )


def carried_out(path: Path) -> tuple[list[Any], str]:
    """What a run made and measured, without times, and a digest of its checkpoint."""
    found: list[Any] = []
    for record in read_trace(path / "trace.jsonl"):
        if record.kind != "act" or record.tool not in ("prune_model", "evaluate"):
            continue
        result: Any = record.result
        found += [(row["id"], row["attention"], row["mlp"]) for row in result.get("candidates", [])]
        found += [(row["id"], row.get("fitness")) for row in result.get("results", [])]
    weights = hashlib.sha256()
    for shard in sorted((path / "model").glob("*.safetensors")):
        weights.update(shard.read_bytes())
    return found, weights.hexdigest()


def arguments() -> argparse.ArgumentParser:
    """The options, with the rates that are stated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="llama-2-70b")
    parser.add_argument("--params")
    parser.add_argument("--tflops", type=float, default=300.0, help="of a GPU, bfloat16")
    parser.add_argument("--float32-tflops", type=float, default=30.0, help="of a GPU, float32")
    parser.add_argument("--cpu-tflops", type=float, default=1.0, help="of a processor")
    parser.add_argument("--gpu-memory", type=float, default=1500.0, help="GB a second")
    parser.add_argument("--memory", type=float, default=10.0, help="GB a second of main memory, read as a file")
    parser.add_argument("--upload", type=float, default=20.0, help="GB a second from memory to a GPU")
    parser.add_argument("--disk", type=float, default=2.0, help="GB a second")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help="carry out two runs here, with these options")
    parser.add_argument("--table", action="store_true", help="print a row a machine")
    return parser


def main() -> None:
    """Print the bills."""
    rates = arguments().parse_args()
    if rates.run is not None:
        side_by_side(rates.model, rates.run)
        return
    settings = Settings(model=rates.model, params=rates.params, cache=Path("no-cache"))
    if rates.table:
        print("\n".join(table(settings, rates)))
        return
    stated = ", ".join(f"{name} {value:g}" for name, value in vars(rates).items() if isinstance(value, float))
    print(f"{rates.model} on machines that are not here; rates as stated: {stated}")
    for name, there in MACHINES.items():
        show(name, settings, there, rates)


if __name__ == "__main__":
    main()
