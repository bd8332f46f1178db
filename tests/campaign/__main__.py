"""The campaign: `python -m tests.campaign`, in full or in parts; README.md beside this file says what they are."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.campaign import forks

if TYPE_CHECKING:
    from tests.campaign.kills import Tally
    from tests.campaign.scenarios import World

PARTS = ("kills", "together", "clock", "disk", "fuzz", "soak")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--points", type=int, default=100, help="points at which commands are ended")
    parser.add_argument("--sizes", type=int, default=20, help="sizes of a full disk")
    parser.add_argument("--clocks", type=int, default=5, help="runs under a clock that jumps")
    parser.add_argument("--at-once", default="2,4", help="how many runs share a memory at once")
    parser.add_argument("--inputs", type=int, default=10_000, help="invented inputs of each sort")
    parser.add_argument("--candidates", type=int, default=5_000, help="candidates of one long run")
    parser.add_argument("--sort", action="append", help="only these sorts of input")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--brain", default="self", help="of the runs; a scripted one takes half the time")
    parser.add_argument("--scenario", action="append", help="only these commands")
    parser.add_argument("--point", action="append", help="end it here, as a fault was printed, and nowhere else")
    options = parser.parse_args()
    if unknown := set(options.parts).difference(PARTS):
        parser.error(f"unknown part {sorted(unknown)[0]}: {', '.join(PARTS)}")
    options.parts = options.parts or PARTS
    return options


def main() -> int:
    """Carry out parts of the campaign; returns 1 where a fault was found."""
    options = parse()
    start = time.monotonic()
    forks.load_everything()
    from tests.campaign.scenarios import make_world

    world = make_world(options.brain)
    try:
        tallies = list(carried_out(options, world))
    finally:
        shutil.rmtree(world.base, ignore_errors=True)
    say(f"\n{time.monotonic() - start:.0f} s")
    for part, tally in tallies:
        say(f"{part}: {', '.join(f'{count} {name}' for name, count in sorted(tally.tried.items()))}")
        if tally.phases:
            say("  " + ", ".join(f"{name} {count}" for name, count in sorted(tally.phases.items())))
    faults = [fault for _, tally in tallies for fault in tally.faults]
    say("\n".join([f"{len(faults)} faults", *faults]))
    return 1 if faults else 0


def carried_out(options: argparse.Namespace, world: World) -> Iterator[tuple[str, Tally]]:
    """The parts that are asked for, one after another, with what came of each."""
    from tests.campaign import disk, fuzz, kills, soak, together
    from tests.campaign.inputs import TARGETS
    from tests.campaign.scenarios import SCENARIOS

    if options.point:
        yield "one point", kills.repeat(world, options.scenario[0], options.point, say)
        return
    if "fuzz" in options.parts:
        sorts = {name: target for name, target in TARGETS.items() if not options.sort or name in options.sort}
        yield "fuzz", fuzz.campaign(sorts, options.inputs, options.seed, say)
    if "soak" in options.parts:
        yield "soak", soak.campaign(world, options.candidates, say)
    if not {"kills", "together", "clock", "disk"}.intersection(options.parts):
        return
    whole = kills.survey(world, SCENARIOS["run"])
    if "kills" in options.parts:
        only = tuple(options.scenario or SCENARIOS)
        yield "kills", kills.campaign(world, options.points, options.seed, say, whole, only)
    if "together" in options.parts:
        for count in map(int, options.at_once.split(",")):
            yield "together", together.at_once(world, count, whole, say)
    if "clock" in options.parts:
        yield "clock", together.clock(world, options.clocks, whole, say)
    if "disk" in options.parts:
        yield "disk", disk.campaign(world, SCENARIOS["run"], whole, options.sizes, say)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
