"""python -m benchmarks.gpu [--part NAME ...] [--minutes 8] [--output FOLDER] [--tiny] | --show FOLDER."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.record import Deadline, Record, begun, write_json
from benchmarks.gpu.table import NoResultsError, load, text_of

RESULTS = Path("benchmarks/results/gpu")
PATIENCE = 10  # times its limit that a part may take with toy shapes: the processor may be busy with other work
GRACE = 5.0  # seconds that a part may take longer than it was told, before it is killed


@dataclass(frozen=True, slots=True)
class Part:
    """One question, and the seconds that its answer may take."""

    name: str
    module: str
    seconds: float


PARTS = (
    Part("headline", "headline", 150),
    Part("bandwidth", "bandwidth", 15),
    Part("refits", "refits", 45),
    Part("walk", "walk", 100),
    Part("streamed", "streamed", 90),
    Part("seven-billion", "seven_billion", 50),
    Part("brain", "brain", 30),
)


def main() -> int:
    """Run the parts that were asked for, print the table; 1 where one failed, 2 for arguments that make no sense."""
    args = _arguments()
    if args.show:
        try:
            print(text_of(load(args.show)))
        except NoResultsError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: results cannot be written to {args.output}: {error.strerror}", file=sys.stderr)
        return 2
    # Imported once, before the parts are forked: each then begins in a moment, with a device of its own.
    import torch
    import transformers  # noqa: F401

    if not args.tiny and not torch.backends.cuda.is_built():
        print("error: this torch has no CUDA; --tiny runs every part on the processor with toy shapes", file=sys.stderr)
        return 2
    wanted = [part for part in PARTS if not args.part or part.name in args.part]
    for part in wanted:
        importlib.import_module(f"benchmarks.gpu.{part.module}")
    end = time.monotonic() + 60 * args.minutes
    statuses = []
    for part in wanted:
        seconds = part.seconds * (PATIENCE if args.tiny else 1)
        limit = min(seconds, end - time.monotonic() - GRACE)
        path = args.output / f"{part.name}.json"
        if limit <= 1:
            print(f"{part.name}: not begun, the {args.minutes:g} minutes are over", flush=True)
            statuses.append("not begun")
            continue
        print(f"{part.name}: up to {limit:.0f} s", flush=True)
        statuses.append(_isolated(part, path, limit, args))
        print(f"{part.name}: {statuses[-1]}", flush=True)
    print(flush=True)
    if any(status != "not begun" for status in statuses):
        print(text_of([content for content in load(args.output) if content["part"] in {part.name for part in wanted}]))
    return 1 if "failed" in statuses else 0


def _isolated(part: Part, path: Path, limit: float, args: argparse.Namespace) -> str:
    """Run a part in a process of its own, so that its memory, its cap and its end are its own; how it ended."""
    path.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(part, path, limit, args))
    child.start()
    try:
        child.join(limit + GRACE)
        over = child.is_alive()
    finally:
        _kill(child)
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else begun(part.name, limit, {})
    if content["status"] == "running":
        doing = content.get("phase") or f"after {len(content['rows'])} rows"
        why = f"after {limit:.0f} s, {doing}" if over else f"its process ended with status {child.exitcode}, {doing}"
        content |= {"status": "cut off" if over else "failed", "why": why}
        write_json(path, content)
    return str(content["status"])


def _kill(child: multiprocessing.process.BaseProcess) -> None:
    """End a part and whatever it has started."""
    if child.is_alive() and child.pid is not None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            child.kill()
    child.join()


def _child(part: Part, path: Path, limit: float, args: argparse.Namespace) -> None:
    os.setpgid(0, 0)  # whatever a part starts ends with it
    gc.freeze()  # a collection between two measurements need not look at what was imported
    from benchmarks.gpu.device import Device, reason
    from benchmarks.gpu.profiles import real_shapes, toy_shapes

    tiny = args.tiny
    shapes = toy_shapes() if tiny else real_shapes(args.streamed_layers)
    facts = {name: value for name, value in asdict(shapes).items() if name not in ("giant", "relative")}
    record = Record(path, part.name, limit, facts | {"tiny": tiny})
    try:
        import torch

        torch.set_grad_enabled(False)
        if tiny:
            torch.set_num_threads(1)  # toys gain nothing from more, and waiting threads spin
        device = Device("cpu" if tiny else "cuda")
        record.set(device=device.describe())
        importlib.import_module(f"benchmarks.gpu.{part.module}").run(record, device, shapes, Deadline(limit))
    except Exception as error:  # said in the file and on the screen; the next part goes on
        record.end("failed", reason(error))
        raise
    record.end("done")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="What no CPU can answer, in ten minutes on a GPU: every part writes its JSON as soon as it has it.",
    )
    parser.add_argument(
        "--part",
        action="append",
        choices=[part.name for part in PARTS],
        help="run this part alone; may be given several times",
    )
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="for all parts together (default 8)")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"folder of the JSON files (default {RESULTS})")
    parser.add_argument(
        "--streamed-layers",
        type=_layers,
        default=12,
        metavar="N",
        help="layers of the giant that are written to the disk, 1.7 GB each, and streamed (2 to 80, default 12)",
    )
    parser.add_argument("--tiny", action="store_true", help="toy shapes on the processor, in under a minute")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="print the table of earlier results")
    return parser.parse_args()


def _layers(text: str) -> int:
    layers = int(text)
    if not 2 <= layers <= 80:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of layers from 2 to 80")
    return layers


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 1e4:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
