"""How much memory and disk a run will need, line by line, from the sizes of the model and the settings.

Bounds that the run keeps to are taken as used up. Pure functions of integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from self_pruner.agent.dry_run.rates import Sizes
from self_pruner.agent.dry_run.talk import Talk
from self_pruner.agent.dry_run.time_and_tokens import Estimate
from self_pruner.agent.prepare.workbench import PREFIX_MEMORY
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import PARTS
from self_pruner.prompts.variables import Kind
from self_pruner.tools.evaluation.fitness import TOP_K
from self_pruner.tools.evaluation.targets import HEAD_TOKENS

TRACED = 6  # bytes of the trace a token read or written
CHECKPOINTED = 25_000  # bytes of the graph's checkpoints a candidate
SCORED = 250  # bytes of the memory file a sequence measured


@dataclass(frozen=True, slots=True)
class Bytes:
    """One line: what takes so many bytes, and where."""

    what: str
    bytes: int
    where: str  # memory, device, cache, run, or memory file


def memory(settings: Settings, sizes: Sizes, talks: Mapping[Kind, Talk], device: str, here: int) -> tuple[Bytes, ...]:
    """What a run holds in memory at its peak.

    Args:
        settings: of the run.
        sizes: of the model.
        talks: what each kind of turn costs the brain.
        device: what the run computes on; on a CPU all is in one memory.
        here: bytes of this process, which has loaded the libraries and nothing else.
    """
    near = "memory" if device == "cpu" else "device"
    widest = max(map(sizes.channels, PARTS))
    states = 2 * sizes.calibration_tokens * sizes.hidden * 4  # of a dense and a pruned model, float32
    working = 3 * 8 * widest**2 + 4 * HEAD_TOKENS * sizes.vocab * 4
    lines = [
        Bytes("Python and libraries", here, "memory"),
        Bytes("Weights", sizes.params * sizes.bytes, near),
        Bytes("Gram matrices", sizes.gram_bytes, "memory"),
        Bytes("Hidden states kept for children", min(PREFIX_MEMORY, kept_states(settings, sizes)), near),
        Bytes("Dense targets", target_bytes(settings), "memory"),
        Bytes("Calibration states", states, near),
        Bytes("One layer at work", working, near),
    ]
    if settings.compensation == "lstsq":
        lines.insert(3, Bytes("Remembered refits", min(sizes.refit_memory, refit_bytes(sizes)), near))
    if settings.recalibrate and settings.compensation == "lstsq":
        carried = 4 * sizes.layers * sizes.hidden * sum(map(sizes.channels, PARTS))
        lines.append(Bytes("Moments of the recalibration", sizes.gram_bytes + carried, "memory"))
    if settings.brain == "self" and talks:
        tokens = max(talk.prompt + settings.samples * talk.reply for talk in talks.values())
        # keys and values, in buffers that double
        lines.append(Bytes("Brain's prompt cache", 4 * sizes.layers * sizes.keys * tokens * sizes.bytes, near))
    if settings.export:
        lines.append(Bytes("Pruned tensors at export", sizes.pruned_params * sizes.bytes, near))
    return tuple(lines)


def disk(
    settings: Settings, sizes: Sizes, cost: Estimate, to_fetch: Mapping[str, int], unpacked: int
) -> tuple[Bytes, ...]:
    """What a run writes to disk.

    Args:
        settings: of the run.
        sizes: of the model.
        cost: of the run.
        to_fetch: bytes that it fetches first, by what they are.
        unpacked: bytes that of those are written once more in another form.
    """
    measured = sum(item.tokens for item in cost.items if not item.what.startswith(("Brain", "Calib", "Recalib")))
    spoken = cost.spoken.read + cost.spoken.written
    lines = [Bytes(f"Fetched: {what}", count, "cache") for what, count in to_fetch.items() if count]
    if unpacked:
        lines.append(Bytes("Unpacked model", unpacked, "cache"))
    lines += [
        Bytes("Gram matrices", sizes.gram_bytes, "cache"),
        Bytes("Dense targets", target_bytes(settings), "cache"),
        Bytes("Trace and checkpoints", TRACED * spoken + CHECKPOINTED * cost.evaluations, "run"),
        Bytes("Scores", SCORED * measured // settings.sequence_length, "memory file"),
    ]
    if settings.export:
        lines.append(Bytes("Pruned checkpoint", sizes.pruned_params * sizes.bytes, "run"))
    return tuple(lines)


def kept_states(settings: Settings, sizes: Sizes) -> int:
    """Bytes of all hidden states of a population on the fitness text after every sublayer: more is never kept."""
    one = settings.fidelity[-1] * sizes.hidden * sizes.bytes
    return 2 * sizes.layers * settings.offspring * one


def refit_bytes(sizes: Sizes) -> int:
    """Bytes of all factors and of a refit of every place at every width: more is never remembered."""
    total = 0
    for part in PARTS:
        n, units = sizes.channels(part), sizes.space.units(part)
        total += 4 * n * (n + sizes.hidden) + sizes.bytes * sizes.hidden * n * (units - 1) // 2
    return sizes.layers * total


def target_bytes(settings: Settings) -> int:
    """Bytes of the dense targets of all texts."""
    tokens = settings.fitness_tokens + settings.reporting_tokens * len(settings.reporting_texts)
    return tokens * (8 * TOP_K + 12)
